"""From the fields of a request to prompts, sampling and parsers: everything that is decided before a token is sampled.

A request becomes a `Plan` with one `Choice` for each answer it asks for (`n`, times the prompts of a plain
completion). Planning may take long (a big schema, a chat template), so the server does it outside its event loop.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from melete.errors import ConfigError
from melete.llm import folding
from melete.llm.engine import Generation, Sampling
from melete.serve import problems
from melete.serve.form import ChatForm, CompletionForm, Form
from melete.serve.output import Delta, OutputParser
from melete.serve.problems import Problem
from melete.serve.schema import ChatRequest, CompletionRequest, GenerationRequest

if TYPE_CHECKING:
    from melete.llm.lm import LM
    from melete.records import Conversation
    from melete.serve.models import ServedModel
    from melete.serve.recording import EpisodeRecord
    from melete.serve.stream import Outlet


@dataclass
class Choice:
    """One answer of a request: choice `index`, to one of its prompts.

    Of one that is recorded, `version` is that of the weights, `conversation` what the prompt was made of.
    """

    index: int
    prompt_ids: list[int]
    sampling: Sampling
    parser: OutputParser | None
    text: str = ""
    outlet: Outlet | None = None
    generation: Generation | None = None
    finished: bool = False
    version: int = 0
    conversation: Conversation | None = None

    def deltas(self) -> list[Delta]:
        """A finished answer of a chat in pieces, as a stream carries them."""
        assert self.parser is not None
        content = [Delta(self.parser.content)] if self.parser.content else []
        calls = enumerate(self.parser.calls)
        return content + [Delta(call.arguments, i, call.id, call.name) for i, call in calls]


@dataclass
class Plan:
    """A request made ready: nothing has been submitted yet. `param` is the field that holds the prompt, `dropped` the
    number of messages left out of it or folded, `episode` what records it."""

    model: ServedModel
    request: GenerationRequest
    choices: list[Choice]
    form: Form
    param: str
    dropped: int = 0
    episode: EpisodeRecord | None = None


def plan_chat(model: ServedModel, request: ChatRequest) -> Plan:
    """Makes a chat request ready.

    Raises:
        Problem: it does not fit the context, or a schema cannot be enforced.
        ConfigError: the model's chat template refuses the conversation.
    """
    with model.lock:
        prompt, dropped = _chat_prompt(model, request)
        room = _room(model, prompt, request.wanted_tokens, "messages")
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        choices = []
        for index in range(request.n or 1):
            # A constraint keeps its place in the grammar, so each choice has its own.
            sampling = _sampling(model, request, room, index, logprobs)
            sampling = replace(sampling, constraint=model.grammars.for_request(request))
            parser = OutputParser.of(model.lm, tools=bool(request.tools) and request.tool_choice != "none")
            choices.append(Choice(index, prompt, sampling, parser))
    return Plan(model, request, choices, ChatForm(model, request, dropped), "messages", dropped)


def plan_completion(model: ServedModel, request: CompletionRequest) -> Plan:
    """Makes a plain completion ready; a text prompt begins with the beginning-of-text token if the model has one.

    Raises:
        Problem: a prompt is empty or does not fit the context.
    """
    lm = model.lm
    start = [] if lm.bos is None else [lm.bos]
    with model.lock:
        prompts = [
            [*start, *lm.encode(prompt)] if isinstance(prompt, str) else prompt for prompt in request.prompts
        ]
    choices: list[Choice] = []
    for prompt in prompts:
        if not prompt:
            raise Problem(400, "prompt: a prompt is empty; give text or token ids.", param="prompt")
        room = _room(model, prompt, request.max_tokens, "prompt")
        for i in range(request.n or 1):
            sampling = _sampling(model, request, room, i, request.logprobs)
            choices.append(Choice(len(choices), prompt, sampling, None))
            if request.echo:
                choices[-1].text = lm.decode(
                    prompt[len(start) :] if prompt[: len(start)] == start else prompt
                )
    return Plan(model, request, choices, CompletionForm(model, request), "prompt")


def _chat_prompt(model: ServedModel, request: ChatRequest) -> tuple[list[int], int]:
    """The prompt, and how many of the oldest messages were left out of it, or folded, to make room for the answer.

    `truncation: auto` leaves them out from one message of the user to the next, so that what remains is whole;
    `truncation: fold` makes them a note, see `melete.llm.folding`. What cannot be made to fit stays as it is.
    """
    conversation = request.conversation()
    context, wanted = model.lm.context, request.wanted_tokens
    if request.truncation == "fold":
        return _folded(model.lm, conversation, folding.budget(context, wanted))
    turns = list(conversation.turns)
    while True:
        prompt, _ = model.lm.chat.render(replace(conversation, turns=tuple(turns)), generation_prompt=True)
        asked = [i for i, turn in enumerate(turns) if turn.role == "user"]
        fits = len(prompt) + (wanted or context // 4) <= context
        if request.truncation != "auto" or fits or len(asked) < 2:
            return prompt, len(conversation.turns) - len(turns)
        del turns[asked[0] : asked[1]]


def _folded(lm: LM, conversation: Conversation, budget: int) -> tuple[list[int], int]:
    prompt, _ = lm.chat.render(conversation, generation_prompt=True)
    if len(prompt) > budget:
        with contextlib.suppress(ConfigError):
            return folding.fold(lm, conversation, budget)
    return prompt, 0


def _room(model: ServedModel, prompt: list[int], wanted: int | None, param: str) -> int:
    """The most tokens the answer may have."""
    room = model.lm.context - len(prompt)
    if room < 1 or (wanted or 1) > room:
        raise problems.context_too_long(len(prompt), wanted or 1, model.lm.context, param)
    return wanted or room


def _sampling(
    model: ServedModel, request: GenerationRequest, room: int, index: int, logprobs: int | None
) -> Sampling:
    if logprobs is not None:
        model.grammars.token_bytes(0)  # tables that are built once, here and not in the event loop
    further = tuple(request.stop_token_ids or ())
    return Sampling(
        max_tokens=room,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=max(request.top_k or 0, 0),
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=None if request.seed is None else (request.seed + index) % 2**63,
        stop_ids=(*model.lm.chat.stop_ids, *further) if further else None,
        stop=request.stops,
        logprobs=logprobs,
    )
