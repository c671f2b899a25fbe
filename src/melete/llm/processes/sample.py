"""Samples text from a language model: it continues a prompt, or answers it as a chat message.

All samples are drawn in one batch; with the same seed and weights they are the same again. The model may be a run of
ours, a checkpoint folder, a folder in transformers layout or a hub id.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.records import Conversation, Turn
from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `llm.sample`."""

    run: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model: a run, id:step, a checkpoint or transformers folder, a hub id."
    )
    prompt: list[str] = Field(["Once upon a time"], min_length=1, description="Prompts; each is sampled.")
    chat: bool = Field(
        False, description="Takes each prompt as a user's message, with the calculator as the tool on offer."
    )
    count: int = Field(1, ge=1, le=1024, description="Samples of each prompt.")
    max_tokens: int = Field(128, ge=1, description="Most new tokens of a sample.")
    temperature: float = Field(0.8, ge=0, description="0 takes the most probable token each time.")
    top_k: int = Field(50, ge=0, description="Samples among the k most probable tokens; 0 among all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Samples among the most probable that reach this share."
    )


EXAMPLE = {"run": "latest", "prompt": ["The"], "max_tokens": 8}


def main(config: Config, run: Run) -> None:
    """Loads the model, samples, prints, and keeps the texts in `samples/`."""
    import time

    from melete import settings
    from melete.llm import lm as models
    from melete.llm.calculator import TOOL
    from melete.llm.config import resolve_device
    from melete.llm.engine import Engine, Sampling

    lm = models.load(config.run, settings.load(), resolve_device(config.device))
    prompts = []
    for text in config.prompt:
        if config.chat:
            ids, _ = lm.chat.render(Conversation((Turn("user", text),), (TOOL,)), generation_prompt=True)
        else:
            ids = [*([] if lm.bos is None else [lm.bos]), *lm.encode(text)]
        prompts += [ids] * config.count
    engine = Engine(lm, slots=min(32, len(prompts)))
    sampling = Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
    )
    began = time.perf_counter()
    completions = engine.generate(prompts, sampling)
    took = time.perf_counter() - began
    for i, completion in enumerate(completions):
        prompt, number = config.prompt[i // config.count], i % config.count + 1
        text = (
            f"{prompt}\n{_said(lm.chat.parse(completion.token_ids))}"
            if config.chat
            else prompt + completion.text
        )
        run.say(f"[{number}/{config.count}, {len(completion.token_ids)} tokens, {completion.finish_reason}]")
        run.say(text + "\n")
        run.sample(i, "sample", text)
    tokens = sum(len(completion.token_ids) for completion in completions)
    run.result["tokens"] = tokens
    run.result["tokens_per_s"] = round(tokens / took, 1)


def _said(turn: Turn) -> str:
    """An answer as text, each tool call as `name(arguments)`."""
    return "\n".join(filter(None, (turn.content, *(f"{c.name}({c.arguments})" for c in turn.tool_calls))))
