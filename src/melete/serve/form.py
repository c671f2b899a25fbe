"""How answers are written as JSON: whole, and in the chunks of a stream.

Chunks are put together as text around a prepared frame, because building and validating an object for each token
would cost more than sampling the token.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melete.serve.output import Delta
from melete.serve.schema import ChatRequest, GenerationRequest, compact

if TYPE_CHECKING:
    from melete.llm.engine import Token
    from melete.serve.models import ServedModel
    from melete.serve.plan import Choice


class Form:
    """How an answer is written as JSON: what chat and plain completions share.

    Args:
        model: the model that answers.
        request: its fields decide what is included.
    """

    prefix, whole, piece = "", "", ""

    def __init__(self, model: ServedModel, request: GenerationRequest) -> None:
        self._model = model
        self._request = request
        self._ids = bool(request.return_token_ids)
        self._with_usage = bool(request.stream_options and request.stream_options.include_usage)
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.created_s = int(time.time())
        # OpenAI's field for "the configuration that answered": here the version of the weights.
        self._fingerprint = f"weights-{model.version}"
        head = compact(
            {
                "id": self.id,
                "object": self.piece,
                "created": self.created_s,
                "model": model.id,
                "system_fingerprint": self._fingerprint,
            }
        )
        self._head = f"data: {head[:-1]},"
        self._tail = ',"usage":null}\n\n' if self._with_usage else "}\n\n"

    def opening(self, choices: Sequence[Choice]) -> str:
        """Chunks sent before the first token."""
        raise NotImplementedError

    def chunks(self, choice: Choice, tokens: list[Token], deltas: list[Delta]) -> str:
        """Chunks for some tokens of one choice, as server-sent events."""
        raise NotImplementedError

    def closing(self, usage: dict[str, Any]) -> str:
        """The usage, if asked for, and the end of the stream."""
        counts = f'{self._head}"choices":[],"usage":{compact(usage)}}}\n\n' if self._with_usage else ""
        return f"{counts}data: [DONE]\n\n"

    def body(
        self, choices: Sequence[Choice], tokens: Sequence[list[Token]], usage: dict[str, Any]
    ) -> dict[str, Any]:
        """The whole answer; `tokens` holds those of each choice."""
        return {
            "id": self.id,
            "object": self.whole,
            "created": self.created_s,
            "model": self._model.id,
            "system_fingerprint": self._fingerprint,
            "choices": [self.choice(*pair) for pair in zip(choices, tokens, strict=True)],
            "usage": usage,
        }

    def choice(self, choice: Choice, tokens: list[Token]) -> dict[str, Any]:
        """One finished choice."""
        raise NotImplementedError

    def _shown(self, choice: Choice, tokens: list[Token]) -> list[Token]:
        """The tokens of which log-probabilities are shown: without the one that ended the turn, unless ids are asked
        for, which then have the same length."""
        stops = choice.sampling.stop_ids or self._model.lm.chat.stop_ids
        return tokens if self._ids else [token for token in tokens if token.id not in stops]

    def _token_text(self, token: int) -> str:
        return self._model.grammars.token_bytes(token).removeprefix(b"\xff").decode("utf-8", "replace")


class ChatForm(Form):
    """`chat.completion` and `chat.completion.chunk`."""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: ServedModel, request: ChatRequest, dropped: int) -> None:
        super().__init__(model, request)
        how = "folded_messages" if request.truncation == "fold" else "dropped_messages"
        self._shortened = {how: dropped} if dropped else {}

    def opening(self, choices: Sequence[Choice]) -> str:
        """One chunk a choice with the role; the first carries what is said about the prompt."""
        about = "".join(f'"{key}":{compact(value)},' for key, value in self._about_prompt(choices).items())
        text = ""
        for choice in choices:
            delta = '{"role":"assistant","content":""}'
            text += f"{self._head}{about}{self._choice(choice.index, delta)}{self._tail}"
            about = ""
        return text

    def chunks(self, choice: Choice, tokens: list[Token], deltas: list[Delta]) -> str:
        """A chunk for each delta; the finish reason comes in a chunk of its own, as clients expect."""
        pieces = [_delta(delta) for delta in deltas]
        extras = self._extras(choice, tokens)
        if extras and not pieces and tokens:
            pieces = ["{}"]
        # Token ids and log-probabilities of all these tokens go with the first of their chunks.
        lines = [
            self._choice(choice.index, piece, extras if i == 0 else "") for i, piece in enumerate(pieces)
        ]
        if choice.finished:
            lines.append(self._choice(choice.index, "{}", reason=self._reason(choice)))
        return "".join(f"{self._head}{line}{self._tail}" for line in lines)

    def choice(self, choice: Choice, tokens: list[Token]) -> dict[str, Any]:
        """A message with its finish reason."""
        assert choice.parser is not None
        calls = choice.parser.calls
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.parser.content if choice.parser.content or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = [call.to_openai() for call in calls]
        value = {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice, tokens),
            "finish_reason": self._reason(choice),
        }
        if self._ids:
            value["token_ids"] = [token.id for token in tokens]
        return value

    def body(
        self, choices: Sequence[Choice], tokens: Sequence[list[Token]], usage: dict[str, Any]
    ) -> dict[str, Any]:
        """See `Form.body`; with what is said about the prompt."""
        return super().body(choices, tokens, usage) | self._about_prompt(choices)

    def _about_prompt(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The prompt's ids if they are asked for, and how many messages were left out or folded if any were."""
        ids = {"prompt_token_ids": choices[0].prompt_ids} if self._ids else {}
        return ids | self._shortened

    def _choice(self, index: int, delta: str, extras: str = "", reason: str | None = None) -> str:
        quoted = "null" if reason is None else f'"{reason}"'
        return f'"choices":[{{"index":{index},"delta":{delta}{extras},"finish_reason":{quoted}}}]'

    def _extras(self, choice: Choice, tokens: list[Token]) -> str:
        ids = f',"token_ids":{compact([token.id for token in tokens])}' if self._ids else ""
        logprobs = self._logprobs(choice, tokens)
        return f'{ids},"logprobs":{compact(logprobs)}' if logprobs else ids

    def _reason(self, choice: Choice) -> str:
        assert choice.generation is not None
        assert choice.parser is not None
        reason = choice.generation.finish_reason
        return "tool_calls" if reason == "stop" and choice.parser.calls else str(reason)

    def _logprobs(self, choice: Choice, tokens: list[Token]) -> dict[str, Any] | None:
        if not self._request.wants_logprobs:
            return None
        return {
            "content": [
                {
                    **self._entry(token.id, token.logprob),
                    "top_logprobs": [self._entry(other, value) for other, value in token.top],
                }
                for token in self._shown(choice, tokens)
            ],
            "refusal": None,
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._model.grammars.token_bytes(token).removeprefix(b"\xff")
        return {"token": data.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(data)}


class CompletionForm(Form):
    """`text_completion`, whole and in pieces."""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def opening(self, choices: Sequence[Choice]) -> str:
        """The prompt itself with `echo`, and its ids if they are asked for."""
        text = ""
        for choice in choices:
            ids = f',"prompt_token_ids":{compact(choice.prompt_ids)}' if self._ids else ""
            if choice.text or ids:
                text += f"{self._head}{self._choice(choice.index, choice.text, ids)}{self._tail}"
        return text

    def chunks(self, choice: Choice, tokens: list[Token], deltas: list[Delta]) -> str:
        """One chunk with the text of all these tokens."""
        text = "".join(delta.text for delta in deltas)
        extras = f',"token_ids":{compact([token.id for token in tokens])}' if self._ids else ""
        logprobs = self._logprobs(choice, tokens, len(choice.text) - len(text))
        extras += f',"logprobs":{compact(logprobs)}' if logprobs else ""
        if not (text or extras or choice.finished):
            return ""
        reason = str(choice.generation.finish_reason) if choice.finished and choice.generation else None
        return f"{self._head}{self._choice(choice.index, text, extras, reason)}{self._tail}"

    def choice(self, choice: Choice, tokens: list[Token]) -> dict[str, Any]:
        """A text with its finish reason."""
        assert choice.generation is not None
        start = len(choice.text) - sum(len(token.text) for token in tokens)
        value = {
            "index": choice.index,
            "text": choice.text,
            "logprobs": self._logprobs(choice, tokens, start),
            "finish_reason": choice.generation.finish_reason,
        }
        if self._ids:
            value["prompt_token_ids"] = choice.prompt_ids
            value["token_ids"] = [token.id for token in tokens]
        return value

    def _choice(self, index: int, text: str, extras: str, reason: str | None = None) -> str:
        quoted = "null" if reason is None else f'"{reason}"'
        return f'"choices":[{{"index":{index},"text":{compact(text)}{extras},"finish_reason":{quoted}}}]'

    def _logprobs(self, choice: Choice, tokens: list[Token], offset: int) -> dict[str, Any] | None:
        if not self._request.wants_logprobs:
            return None
        shown = self._shown(choice, tokens)
        offsets = []
        for token in shown:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [self._token_text(token.id) for token in shown],
            "token_logprobs": [_finite(token.logprob) for token in shown],
            "top_logprobs": [
                {self._token_text(other): _finite(value) for other, value in token.top} for token in shown
            ],
            "text_offset": offsets,
        }


def _delta(delta: Delta) -> str:
    if delta.call is None:
        return f'{{"content":{compact(delta.text)}}}'
    if delta.name is None:
        call = f'{{"index":{delta.call},"function":{{"arguments":{compact(delta.text)}}}}}'
    else:
        function = {"name": delta.name, "arguments": delta.text}
        call = compact({"index": delta.call, "id": delta.id, "type": "function", "function": function})
    return f'{{"tool_calls":[{call}]}}'


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for a token that cannot be."""
    return logprob if logprob > -9999.0 else -9999.0
