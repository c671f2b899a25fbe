"""A language model of ours behind the evaluation protocol: texts become tokens here, the engine batches them.

A context and its continuation are tokenized apart, with the spaces between them on the continuation's side, where both
tokenizer families of ours put them; a context that many requests share is tokenized once, and the engine computes
shared beginnings once. A context that is too long loses its beginning (`ScoreResult.cut`). A continuation that is too
long is scored in windows that overlap by half, so that every token still has at least half of the context before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from melete.evals.model import Generate, ScoreRequest, ScoreResult
from melete.llm.engine import Engine, Sampling
from melete.records import Conversation, Turn

if TYPE_CHECKING:
    from melete.llm.lm import LM

Window = tuple[list[int], list[int]]


class Evaluator:
    """Implements `melete.evals.model.LanguageModel`.

    Args:
        lm: the model.
        slots: most sequences in one batch.
    """

    def __init__(self, lm: LM, slots: int = 32) -> None:
        self.lm = lm
        self.engine = Engine(lm, slots=slots)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.lm.name

    def generate(self, prompts: Sequence[str], how: Generate) -> list[str]:
        """Continues texts; a prompt that leaves no room for the answer loses its beginning."""
        ids = [self._start() + self.lm.encode(prompt) for prompt in prompts]
        completions = self.engine.generate([self._room(tokens, how) for tokens in ids], self._sampling(how))
        return [completion.text for completion in completions]

    def chat(self, conversations: Sequence[Conversation], how: Generate) -> list[Turn]:
        """The next turns; a conversation that leaves no room for the answer loses its beginning."""
        ids = [self.lm.chat.render(conversation, generation_prompt=True)[0] for conversation in conversations]
        completions = self.engine.generate([self._room(tokens, how) for tokens in ids], self._sampling(how))
        return [self.lm.chat.parse(completion.token_ids) for completion in completions]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Scores all windows of all requests in one call of the engine."""
        if not requests:
            return []
        texts = [request.context.rstrip(" ") for request in requests]
        continuations = [
            self.lm.encode(request.context[len(text) :] + request.continuation)
            for request, text in zip(requests, texts, strict=True)
        ]
        contexts, cut_texts = self._contexts(texts, continuations)
        windows, counts, cuts = [], [], []
        for text, continuation in zip(texts, continuations, strict=True):
            parts = list(split(contexts[text], continuation, self.engine.context))
            windows += parts
            counts.append(len(parts))
            cuts.append(text in cut_texts)
        scored = iter(self.engine.score(windows))
        results = []
        for request, count, cut in zip(requests, counts, cuts, strict=True):
            own = [next(scored) for _ in range(count)]
            logprobs = [logprob for part in own for logprob in part.logprobs]
            size = len(request.continuation.encode())
            greedy = all(part.greedy for part in own)
            results.append(ScoreResult(sum(logprobs), greedy, len(logprobs), size, cut))
        return results

    def _contexts(
        self, texts: Sequence[str], continuations: Sequence[list[int]]
    ) -> tuple[dict[str, list[int]], set[str]]:
        """Tokens of each different context, cut so that the longest of its continuations fits; and which were cut.

        All continuations of a context see the same tokens of it: choices stay comparable and share its computation.
        """
        longest: dict[str, int] = {}
        for text, continuation in zip(texts, continuations, strict=True):
            longest[text] = max(longest.get(text, 0), len(continuation))
        contexts, cut = {}, set()
        for text, length in longest.items():
            # Without a beginning-of-text token, what ends a turn stands before a text that is scored from its start.
            tokens = self._start() + self.lm.encode(text) or list(self.lm.chat.stop_ids[:1])
            room = max(self.engine.context - length, self.engine.context // 2)
            if len(tokens) > room:
                cut.add(text)
                tokens = tokens[:1] + tokens[len(tokens) - room + 1 :]
            contexts[text] = tokens
        return contexts, cut

    def _start(self) -> list[int]:
        return [] if self.lm.bos is None else [self.lm.bos]

    def _room(self, tokens: list[int], how: Generate) -> list[int]:
        """The prompt without as much of its beginning as the answer needs, its first token kept."""
        room = max(1, self.engine.context - how.max_tokens)
        return tokens if len(tokens) <= room else tokens[:1] + tokens[len(tokens) - room + 1 :]

    def _sampling(self, how: Generate) -> Sampling:
        most = max(1, min(how.max_tokens, self.engine.context - 1))
        return Sampling(max_tokens=most, temperature=how.temperature, seed=how.seed, stop=how.stop)


def split(context: list[int], continuation: list[int], limit: int) -> Iterator[Window]:
    """Pairs of context and part of the continuation, each of at most `limit` tokens together.

    Args:
        context: at least one token; the first one (beginning of text) is kept in every window.
        continuation: tokens to score; each is in exactly one part.
        limit: most tokens of a window, at least 2.
    """
    if len(context) + len(continuation) <= limit:
        if continuation:
            yield context, continuation
        return
    stride = max(1, limit // 2)
    for start in range(0, len(continuation), stride):
        part = continuation[start : start + stride]
        room = limit - len(part)
        before = context[1:] + continuation[max(0, start - room) : start]
        yield context[:1] + (before[-(room - 1) :] if room > 1 else []), part
