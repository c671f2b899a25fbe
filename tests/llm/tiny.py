"""Tiny real parts for the post-training tests: a byte tokenizer, and transformers folders made from config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melete.llm.tokenizer import Tokenizer

CHATML = (
    "{% if tools %}<|im_start|>system\n{{ messages[0].content + '\n\n' if messages[0].role == 'system' }}# Tools\n"
    "{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|im_start|>user\n{{ message.content }}<|im_end|>\n"
    "{% elif message.role == 'assistant' %}<|im_start|>assistant\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ '\\n' }}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n"
    "{% elif message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ message.content }}\n"
    "</tool_response><|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template in the manner of Qwen's: ChatML with tool calls in tags."""

TEXT = ("the quick brown fox adds 12 and 30 to get 42 and says hello to you ") * 20


def byte_tokenizer() -> Tokenizer:
    """Our tokenizer with the 256 bytes and the special tokens."""
    return Tokenizer([bytes([i]) for i in range(256)])


def hf_tokenizer(template: str | None = CHATML) -> Any:
    """A byte-level BPE tokenizer of the tokenizers library with Qwen's special tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator([TEXT], trainer)
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens(["<tool_call>", "</tool_call>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def transformers_folder(folder: Path, family: str = "qwen3", template: str | None = CHATML) -> Path:
    """Writes a tiny random Qwen3 or Llama in transformers layout."""
    import torch
    import transformers

    tokenizer = hf_tokenizer(template)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    classes = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {"tie_word_embeddings": True}),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {"tie_word_embeddings": False}),
    }
    config_class, model_class, extra = classes[family]
    torch.manual_seed(0)
    model_class(config_class(**sizes, **extra)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def own_checkpoint(folder: Path, context: int = 128, depth: int = 2, width: int = 64) -> Path:
    """A checkpoint of a tiny model of ours with random weights and a tokenizer that knows tool calls."""
    from itertools import islice

    from melete import datasets
    from melete.llm.chat import plain_text
    from melete.llm.checkpoint import save_model
    from melete.llm.config import GPTConfig
    from melete.llm.model import GPT
    from melete.runs.run import Run

    conversations = islice(datasets.open("toolcalls").conversations("train"), 300)
    texts = map(plain_text, conversations)
    tokenizer = Tokenizer.train(texts, 1024)
    shape = GPTConfig(tokenizer.vocab_size, context, depth, width, width // 32, width // 32)
    model = GPT(shape).initialize(0)
    folder.mkdir(parents=True)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    path = save_model(
        Run(folder), stage="pretrain", step=1, model_config=shape, weights=weights, tokenizer=tokenizer
    )
    assert path is not None
    return path
