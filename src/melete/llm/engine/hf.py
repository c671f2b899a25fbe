"""Runs any transformers causal LM on the slot cache, through transformers' own attention interface.

The model's code stays as it is; only its attention function is ours, registered under `melete_slots`: it hands q, k
and v of the flat tokens to the step's pass, so one forward serves rows at any mix of positions. The runner works on
a second module tree over the same tensors, so the caller's model keeps its attention; a LoRA adapter is folded into
a copy.

Limits: softmax attention with rotary or learned positions over all or a window of the context. Models whose scores
are capped, that use attention sinks, biases, linear or latent attention are refused when the engine is made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from melete.errors import CheckpointError, ConfigError
from melete.llm.engine.cache import CacheShape, Pass, PrefillPass, Segment, SlotCache, fit_context

NAME = "melete_slots"
"""Name of the attention function in transformers' registry; no mask is registered, so none is built."""

REFUSED = ("softcap", "s_aux", "position_bias")
"""Arguments of attention variants that the pass does not compute."""


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    slot_pass: Pass | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: q (1, H, N, D), k and v (1, K, N, D) → (1, N, H, D)."""
    assert slot_pass is not None, "this copy of the model runs inside the engine only"
    refused = [name for name in REFUSED if options.get(name) is not None]
    if refused:
        raise ConfigError(f"The engine cannot compute this model's attention: it uses {', '.join(refused)}.")
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    layer: int = module.layer_idx  # type: ignore[assignment]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return slot_pass.attend(layer, q, k, v, scale)[None].to(query.dtype), None


class HFRunner:
    """See the head of this file."""

    def __init__(
        self,
        model: Any,
        most: int,
        slots: int,
        context: int | None,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, slot_attention)
        self.device = device
        self.dtype = dtype or next(model.parameters()).dtype
        self.model = self._own(model)
        self.model.set_attn_implementation(NAME)
        config = self.model.config.get_text_config()
        self.vocab_size = int(self.model.get_output_embeddings().weight.size(0))
        kv_heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        cache_dtype = torch.float32 if device.type == "cpu" else self.dtype
        token_bytes = 2 * int(config.num_hidden_layers) * kv_heads * head_dim * cache_dtype.itemsize
        context = fit_context(context, most, token_bytes, slots, device)
        shape = CacheShape(_windows(config, context), slots, kv_heads, head_dim, context)
        self.cache = SlotCache(shape, device, cache_dtype)
        self._try_out()

    def _try_out(self) -> None:
        """Runs one token, so that a model the engine cannot run is refused now and not in the middle of a request."""
        probe = _Probe(self.cache, [Segment(0, 0, 0, 1)])
        self.cache.clean(1)
        token = torch.zeros(1, dtype=torch.long, device=self.device)
        name = type(self.model).__name__
        try:
            with torch.inference_mode():
                self.forward(token, token, probe, None)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"The engine cannot run a {name}: {error}") from error
        if len(probe.layers) != len(self.cache.kv):
            raise ConfigError(
                f"The engine cannot run a {name}: its attention does not go through transformers' attention interface.",
                next_step="Use a model of another family, such as Qwen or Llama.",
            )

    def _own(self, model: Any) -> Any:
        """A module tree of our own: over the same tensors, or over cast ones, or over a LoRA folded in."""
        if hasattr(model, "peft_config"):
            from transformers import AutoModelForCausalLM

            from melete.llm.hf import merged_state

            plain = copy.deepcopy(model.get_base_model().config)
            own: Any = AutoModelForCausalLM.from_config(plain, dtype=self.dtype)  # type: ignore[no-untyped-call]
            own.load_state_dict(merged_state(model), strict=False)
            own.tie_weights()
            return own.to(self.device).eval()
        # deepcopy takes from `memo` what is already there: each tensor is replaced by our view of it.
        memo: dict[int, Any] = {}
        for parameter in model.parameters():
            mine = nn.Parameter(parameter.detach().to(self.device, self.dtype), requires_grad=False)
            memo[id(parameter)] = mine
        for buffer in model.buffers():
            memo[id(buffer)] = buffer.detach().to(self.device)
        return copy.deepcopy(model, memo).eval()

    def prepare(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Runner.prepare`; the tensors are copied, so the caller may go on training its own."""
        owned = dict(self.model.named_parameters(remove_duplicate=False))
        wrong = [
            name for name, tensor in state_dict.items() if name in owned and owned[name].shape != tensor.shape
        ]
        covered = {id(owned[name]) for name in state_dict if name in owned}
        wrong += [name for name, parameter in owned.items() if id(parameter) not in covered]
        if wrong:
            raise CheckpointError(
                f"The weights do not fit the running model: {', '.join(wrong[:4])} are missing or misshapen.",
                next_step="Swap in a whole state dict of the same architecture, adapters folded in.",
            )
        return {
            name: tensor.detach().to(self.device, self.dtype, copy=True)
            for name, tensor in state_dict.items()
            if name in owned
        }

    def use(self, weights: dict[str, Tensor]) -> None:
        """See `Runner.use`."""
        owned = dict(self.model.named_parameters(remove_duplicate=False))
        for name, tensor in weights.items():
            owned[name].data = tensor

    def forward(self, tokens: Tensor, positions: Tensor, step: Pass, select: Tensor | None) -> Tensor:
        """See `Runner.forward`."""
        output = self.model(
            input_ids=tokens[None],
            # Rows without a request stand one past the end, where learned positions have no entry.
            position_ids=positions.clamp_max(self.cache.shape.context - 1)[None],
            use_cache=False,
            logits_to_keep=0 if select is None else select,
            slot_pass=step,
        )
        logits: Tensor = output.logits[0].float()
        return logits


class _Probe(PrefillPass):
    """A prefill that notes which layers came by."""

    def __init__(self, cache: SlotCache, segments: Sequence[Segment]) -> None:
        super().__init__(cache, segments)
        self.layers: set[int] = set()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `Pass.attend`."""
        self.layers.add(layer)
        return super().attend(layer, q, k, v, scale)


def _windows(config: Any, context: int) -> tuple[int, ...]:
    """Positions that each layer attends to."""
    layers = int(config.num_hidden_layers)
    kinds = list(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None)
    if not kinds:
        kinds = ["sliding_attention" if window else "full_attention"] * layers
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        raise ConfigError(
            f"The engine cannot run this model: it has layers of kind {', '.join(unknown)}.",
            allowed="Layers with full or sliding-window attention.",
        )
    return tuple(int(window) if kind == "sliding_attention" and window else context for kind in kinds)
