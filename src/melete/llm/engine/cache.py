"""Keys and values of every slot, and attention over them: rows of different lengths in one call, no padding copied.

A slot is one row of the cache and holds one sequence, each at its own position. A step attends through a *pass*,
which is built once and used by every layer: `DecodePass` adds one token to each of the rows 0 … B-1, `PrefillPass`
adds several tokens to a few slots. Scores of rows shorter than the longest are masked by a bias.

Decisions: on the CPU the cache is fp32 whatever the weights are, because batched products of one query are faster
there than in bf16 (measured on AVX512-bf16: 14 against 64 µs at batch 1, equal at 32). A layer with a window keeps,
beside all its keys, a ring of the last `window` ones: decoding reads only the ring, prefix reuse needs the rest.
Position `context` of each slot is a bin: rows of the batch that hold no running request write there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from melete.errors import ConfigError

QUERY_BLOCK = 128
"""Query rows per block of prefill attention on the CPU: a block multiplies only with the keys it may see."""

MEMORY_SHARE = 0.5
"""Most of the free memory that a cache may take."""

SHORTEST_CONTEXT = 256
"""A model with a longer context is not cut below this to make its cache fit."""

SPAN_ROWS = 8
"""Rows that are not cut apart any more."""

WORTH_A_CUT = 1 << 18
"""Bytes of keys and values that take as long to read as the calls which one more span costs."""

CLEAN_STEP = 64
"""Positions are zeroed this many at a time before they are first read, so that memory grows with use."""


class Pass(Protocol):
    """What a runner's attention layers need of a step."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Writes k and v (N, K, D) into the cache and returns softmax(scale · q kᵀ) v, (N, H, D), q (N, H, D)."""


@dataclass(frozen=True)
class CacheShape:
    """Sizes of a cache.

    Attributes:
        windows: positions each layer attends to, the own one included; at least `context` means all.
    """

    windows: tuple[int, ...]
    slots: int
    kv_heads: int
    head_dim: int
    context: int


def fit_context(wanted: int | None, most: int, token_bytes: int, slots: int, device: torch.device) -> int:
    """The context that every slot gets: what is wanted, or as much of the model's as the memory has room for.

    Args:
        wanted: tokens asked for; None asks for `most`, or less where that does not fit.
        most: the model's context.
        token_bytes: bytes of keys and values of one token, over all layers.
        slots: rows of the cache.
        device: where it will be.

    Raises:
        ConfigError: what is wanted does not fit, or next to nothing does.
    """
    if device.type == "cuda":
        room = int(torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE)
    else:
        room = int(psutil.virtual_memory().available * MEMORY_SHARE)
    fits = room // (token_bytes * slots) - 1
    if wanted is None and fits >= min(most, SHORTEST_CONTEXT):
        return min(most, fits)
    if wanted is not None and wanted <= fits:
        return wanted
    need = token_bytes * slots * (wanted or most)
    raise ConfigError(
        f"A cache of {slots} slots with {wanted or most:,} tokens each takes {need / 1e9:.1f} GB.",
        allowed=f"There is room for {room / 1e9:.1f} GB: {max(fits, 0):,} tokens in each of {slots} slots.",
        next_step="Use fewer slots or a shorter context.",
    )


class Span(NamedTuple):
    """Neighbouring rows `begin … end - 1` that attend over the same `length`; `aligned` if each fills all of it."""

    begin: int
    end: int
    length: int
    aligned: bool


def spans_of(lengths: Sequence[int], bytes_per_position: int) -> list[Span]:
    """Cuts the rows of a decode step into spans, so that short rows do not read as far as the longest one.

    Args:
        lengths: tokens that each row attends over, 0 for a row without a request.
        bytes_per_position: what one more position of a row costs to read; a cut must save `WORTH_A_CUT` of it.
    """
    spans: list[Span] = []
    for begin in range(0, len(lengths), SPAN_ROWS):
        rows = lengths[begin : begin + SPAN_ROWS]
        filled = [length for length in rows if length] or [1]
        span = Span(begin, begin + len(rows), max(filled), min(filled) == max(filled))
        if spans:
            last = spans[-1]
            longest = max(last.length, span.length)
            read = (last.end - last.begin) * (longest - last.length) + len(rows) * (longest - span.length)
            if read * bytes_per_position < WORTH_A_CUT:
                aligned = last.aligned and span.aligned and last.length == span.length
                spans[-1] = Span(last.begin, span.end, longest, aligned)
                continue
        spans.append(span)
    return spans


class SlotCache:
    """The tensors: per layer `kv` (2, slots, K, context + 1, D), and `rings` (2, slots, K, window, D) or None.

    Attributes:
        fused: attention is torch's fused kernel over all rows at once; else matrix products span by span, which the
            CPU does faster.
    """

    def __init__(self, shape: CacheShape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.device = device
        self.fused = device.type != "cpu"
        size = (2, shape.slots, shape.kv_heads, shape.context + 1, shape.head_dim)
        self.kv = [torch.empty(size, device=device, dtype=dtype) for _ in shape.windows]
        self.rings: list[Tensor | None] = [
            torch.zeros((*size[:3], window, shape.head_dim), device=device, dtype=dtype)
            if window < shape.context
            else None
            for window in shape.windows
        ]
        self._clean = 0
        rows = torch.arange(shape.slots * shape.kv_heads, device=device)
        self._row_base = rows * (shape.context + 1)
        self._ring_base = rows
        self.no_bias = torch.zeros(1, 1, 1, device=device, dtype=dtype)
        if self.fused:
            self.clean(shape.context)

    def clean(self, length: int) -> None:
        """Makes positions below `length` readable: masked scores still multiply with what is stored there."""
        if length <= self._clean:
            return
        end = min(self.shape.context + 1, -(-length // CLEAN_STEP) * CLEAN_STEP)
        for kv in self.kv:
            kv[:, :, :, self._clean : end].zero_()
        self._clean = end

    def wipe(self, slot: int) -> None:
        """Zeroes a slot that may hold numbers that are not finite."""
        for kv, ring in zip(self.kv, self.rings, strict=True):
            kv[:, slot, :, : self._clean].zero_()
            if ring is not None:
                ring[:, slot].zero_()

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of a slot to another."""
        for kv in self.kv:
            kv[:, target, :, :length] = kv[:, source, :, :length]

    def exchange(self, a: int, b: int, length: int) -> None:
        """Exchanges the first `length` positions of two slots, rings included."""
        for kv, ring in zip(self.kv, self.rings, strict=True):
            kept = kv[:, a, :, :length].clone()
            kv[:, a, :, :length] = kv[:, b, :, :length]
            kv[:, b, :, :length] = kept
            if ring is not None:
                kept = ring[:, a].clone()
                ring[:, a] = ring[:, b]
                ring[:, b] = kept

    def fill_rings(self, slot: int, length: int) -> None:
        """Puts the last positions of a slot of `length` tokens into its rings, before it is first decoded."""
        for kv, ring in zip(self.kv, self.rings, strict=True):
            if ring is not None:
                window = ring.size(3)
                ring[:, slot].zero_()
                positions = torch.arange(max(0, length - window), length, device=self.device)
                ring[:, slot, :, positions % window] = kv[:, slot, :, positions]

    def spans(self, lengths: Sequence[int]) -> list[Span]:
        """`spans_of` for the rows of a decode step; fused attention takes them all at once."""
        kv = self.kv[0]
        position_bytes = 2 * kv.size(2) * kv.size(4) * kv.element_size()
        return spans_of(lengths, 0 if self.fused else position_bytes)

    def row_index(self, positions: Tensor) -> Tensor:
        """Row numbers (B·K,) of `kv[0].view(-1, D)` at each row's position."""
        return self._index(self._row_base, positions)

    def ring_index(self, positions: Tensor, window: int) -> Tensor:
        """Row numbers (B·K,) of a ring's `[0].view(-1, D)`."""
        return self._index(self._ring_base * window, positions % window)

    def _index(self, base: Tensor, positions: Tensor) -> Tensor:
        K = self.shape.kv_heads
        return (base[: positions.size(0) * K].view(-1, K) + positions[:, None]).flatten()


class DecodePass:
    """One new token for each of the rows 0 … B-1.

    Args:
        cache: the cache.
        positions: (B,) where each row's token goes; `context` for rows without a running request.
        spans: the rows with the lengths they attend over, at least their position + 1; one span off the CPU.
    """

    def __init__(self, cache: SlotCache, positions: Tensor, spans: Sequence[Span]) -> None:
        self.cache = cache
        self.spans = spans
        self._positions = positions
        self._index = cache.row_index(positions)
        columns = torch.arange(max(span.length for span in spans), device=positions.device)
        whole = all(span.aligned for span in spans)
        self._seen = None if whole else columns <= positions[:, None]
        self._biases: dict[tuple[int, int], Tensor] = {}
        self._ring_index: dict[int, Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `Pass.attend`; N is B."""
        kv, ring = self.cache.kv[layer], self.cache.rings[layer]
        dtype, D = kv.dtype, kv.size(-1)
        k, v = k.reshape(-1, D).to(dtype), v.reshape(-1, D).to(dtype)
        kv[0].view(-1, D).index_copy_(0, self._index, k)
        kv[1].view(-1, D).index_copy_(0, self._index, v)
        if ring is not None:
            window = ring.size(3)
            if window not in self._ring_index:
                self._ring_index[window] = self.cache.ring_index(self._positions, window)
            ring[0].view(-1, D).index_copy_(0, self._ring_index[window], k)
            ring[1].view(-1, D).index_copy_(0, self._ring_index[window], v)
            # A ring's entry j holds a position of the row if j <= position, however often the ring went round.
            kv = ring
        q = q.to(dtype)
        parts = [self._over(kv, span, q[span.begin : span.end], scale) for span in self.spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _over(self, kv: Tensor, span: Span, q: Tensor, scale: float) -> Tensor:
        """Attention of a span's queries (n, H, D) over a cache or ring (2, slots, K, T, D)."""
        K, T, D = kv.size(2), kv.size(3), kv.size(4)
        n, H = q.size(0), q.size(1)
        length = min(T, span.length)
        if self.cache.fused:
            mask = None if self._seen is None else self._seen[span.begin : span.end, None, None, :length]
            keys, values = kv[:, span.begin : span.end, :, :length]
            # The query heads of a group stand in for query positions: no head is repeated, any kernel can do it.
            out = F.scaled_dot_product_attention(
                q.reshape(n, K, H // K, D), keys, values, attn_mask=mask, scale=scale
            )
            return out.reshape(n, H, D)
        rows = slice(span.begin * K, span.end * K)
        keys, values = kv[0].view(-1, T, D)[rows, :length], kv[1].view(-1, T, D)[rows, :length]
        scores = torch.baddbmm(
            self._bias(span, length), q.reshape(n * K, H // K, D), keys.transpose(1, 2), alpha=scale
        )
        return torch.bmm(scores.softmax(-1), values).view(n, H, D)

    def _bias(self, span: Span, length: int) -> Tensor:
        """(n·K, 1, length): 0 where a row may look, -inf elsewhere."""
        if span.aligned or self._seen is None:
            return self.cache.no_bias
        key = (span.begin, length)
        if key not in self._biases:
            seen = self._seen[span.begin : span.end, :length]
            bias = self.cache.no_bias[0, 0].where(seen, -torch.inf)
            self._biases[key] = bias.repeat_interleave(self.cache.shape.kv_heads, 0)[:, None]
        return self._biases[key]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `begin … end - 1` of a prefill go to `slot` at positions `position …`."""

    slot: int
    position: int
    begin: int
    end: int


class PrefillPass:
    """Several new tokens for each of a few slots, laid end to end: matrices see one batch, attention each segment."""

    def __init__(self, cache: SlotCache, segments: Sequence[Segment]) -> None:
        self.cache = cache
        self.segments = segments
        self._masks: dict[tuple[int, int, int], Tensor] = {}
        self._biases: dict[tuple[int, int, int], Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `Pass.attend`; N is the number of tokens of all segments."""
        kv, window = self.cache.kv[layer], self.cache.shape.windows[layer]
        q, k, v = q.to(kv.dtype), k.to(kv.dtype), v.to(kv.dtype)
        out = torch.empty_like(q)
        for segment in self.segments:
            rows = slice(segment.begin, segment.end)
            stop = segment.position + segment.end - segment.begin
            kv[0, segment.slot, :, segment.position : stop] = k[rows].transpose(0, 1)
            kv[1, segment.slot, :, segment.position : stop] = v[rows].transpose(0, 1)
            block = segment.end - segment.begin if self.cache.fused else QUERY_BLOCK
            for begin in range(segment.begin, segment.end, block):
                end = min(begin + block, segment.end)
                first = segment.position + begin - segment.begin
                self._block(kv[:, segment.slot], q[begin:end], first, window, scale, out[begin:end])
        return out

    def _block(self, kv: Tensor, q: Tensor, first: int, window: int, scale: float, out: Tensor) -> None:
        """Attention of queries (n, H, D) at positions `first …` over one slot's kv (2, K, T, D), into `out`."""
        n, H, D = q.shape
        K = kv.size(1)
        low, high = max(0, first - window + 1), first + n
        keys, values = kv[0, :, low:high], kv[1, :, low:high]
        if self.cache.fused:
            whole = first == 0 and window >= n
            if H != K:  # kernels that take a mask want as many key heads as query heads
                keys, values = keys.repeat_interleave(H // K, 0), values.repeat_interleave(H // K, 0)
            mixed = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None],
                keys[None],
                values[None],
                attn_mask=None if whole else self._mask(first, n, window),
                is_causal=whole,
                scale=scale,
            )
            out.copy_(mixed[0].transpose(0, 1))
            return
        grouped = q.view(n, K, H // K, D).permute(1, 2, 0, 3).reshape(K, -1, D)
        key = (first, n, window)
        if key not in self._biases:
            mask = self._mask(first, n, window)
            self._biases[key] = self.cache.no_bias[0, 0].where(mask, -torch.inf).repeat(H // K, 1)
        scores = torch.baddbmm(self._biases[key], grouped, keys.transpose(1, 2), alpha=scale)
        mixed = torch.bmm(scores.softmax(-1), values).view(K, H // K, n, D)
        out.view(n, K, H // K, D).copy_(mixed.permute(2, 0, 1, 3))

    def _mask(self, first: int, n: int, window: int) -> Tensor:
        """(n, keys) bool: which of the keys from `first - window + 1` (or 0) on each query sees."""
        key = (first, n, window)
        if key not in self._masks:
            low = max(0, first - window + 1)
            rows = torch.arange(first, first + n, device=self.cache.device)[:, None]
            columns = torch.arange(low, first + n, device=self.cache.device)
            self._masks[key] = (columns <= rows) & (columns > rows - window)
        return self._masks[key]
