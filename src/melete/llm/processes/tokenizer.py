"""Trains a tokenizer on a text dataset and compares its bytes per token with GPT-2's and cl100k's.

Byte-level BPE in GPT-4 style. The comparison is on held-out text and uses the other vocabularies only where tiktoken
has them cached on this machine.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `llm.tokenizer`."""

    data: Annotated[str, Input("dataset")] = Field(
        "", description="Dataset, or a folder or file of text; empty is classic books or stdlib."
    )
    conversations: Annotated[str, Input("dataset")] = Field(
        "", description="Conversations whose words are learned too, such as a scenario's demonstrations."
    )
    digits: int = Field(
        2,
        ge=1,
        le=2,
        description="Most digits of a token; with 1 a small model copies unseen numbers more surely.",
    )
    vocab_size: int = Field(
        4096, ge=264, description="Tokens of the vocabulary, its 8 special ones included."
    )
    max_chars: int = Field(20_000_000, ge=1_000, description="Characters of training text that are read.")
    eval_chars: int = Field(500_000, ge=1, description="Characters of held-out text for the comparison.")


EXAMPLE = {"data": "stdlib", "vocab_size": 512, "max_chars": 200_000, "eval_chars": 20_000}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete import datasets, settings
    from melete.llm import tokenizing
    from melete.llm.tokenizer import ONE_DIGIT, PATTERN

    known = settings.load()
    dataset = datasets.open(config.data or datasets.default_text(known), known)
    run.datasets[dataset.manifest.id] = dataset.fingerprint
    with run.timed("training the tokenizer"):
        further = datasets.open(config.conversations, known) if config.conversations else None
        pattern = ONE_DIGIT if config.digits == 1 else PATTERN
        tokenizer = tokenizing.train_on(dataset, config.vocab_size, config.max_chars, further, pattern)
    tokenizing.save_tokenizer(run, tokenizer, dataset)
    run.say(f"{tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}.")

    texts, chars = [], 0
    for text in dataset.documents("val"):
        texts.append(text[: config.eval_chars - chars])
        chars += len(texts[-1])
        if chars >= config.eval_chars:
            break
    tokenizing.check_round_trip(tokenizer, texts)
    ours = tokenizing.bytes_per_token(tokenizer, texts)
    run.say(f"{'ours':<12} {tokenizer.vocab_size:>8,} tokens  {ours:.3f} bytes per token on held-out text")
    run.result.update(vocab_size=tokenizer.vocab_size, bytes_per_token=round(ours, 4))
    for name in tokenizing.PEERS:
        encoding = tokenizing.peer(name)
        if encoding is None:
            run.say(f"{name:<12} not at hand: tiktoken has it not cached here, and nothing is downloaded")
            continue
        theirs = tokenizing.bytes_per_token(encoding, texts)
        run.say(f"{name:<12} {encoding.n_vocab:>8,} tokens  {theirs:.3f} bytes per token")
        run.result[f"bytes_per_token_{name}"] = round(theirs, 4)
