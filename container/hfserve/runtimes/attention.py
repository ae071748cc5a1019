"""Attention of packed sequences in few launches, for GPUs.

Packing runs the attention of each sequence by itself. A CPU loses nothing by that; a GPU waits for all those kernels to
be started, layers times sequences of them, for longer than it computes. Here one launch takes all sequences, or all of
like length. `suited` says which way may be taken on which GPU; whether it then holds is for the caller to check.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from hfserve.runtimes import packing
from hfserve.runtimes.device import AMPERE, put
from hfserve.runtimes.packing import Row, Undo
from hfserve.runtimes.torch import groups

HALVES = (torch.float16, torch.bfloat16)

ALIGNED = 8
"""Padded lengths are multiples of it: a mask of another width would be copied in every layer."""

MOST_PADDING = 2.0
"""Padded tokens over real ones at most: another bucket costs five launches, some thousand padded tokens' worth."""


class Shape(NamedTuple):
    """Of a bucket: how many sequences, filled up to which length, and whether none had to be."""

    sequences: int
    width: int
    is_full: bool


@dataclass(frozen=True, slots=True)
class Buckets:
    """The sequences of a row, those of like length together and filled up to one; bucket follows upon bucket.

    `tokens` says which token of the row stands in each place, `real` whether it is more than filling, and `back` where
    each token of the row stands.
    """

    shapes: Sequence[Shape]
    tokens: torch.Tensor
    real: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], place: torch.device) -> "Buckets":
        """Laid out on the host, so that the GPU is waited for nowhere."""
        starts = list(accumulate(lengths, initial=0))
        laid = [
            _laid_out([starts[i] for i in group], [lengths[i] for i in group])
            for group in groups(lengths, MOST_PADDING)
        ]
        tokens = torch.cat([each.flatten() for _, each, _ in laid])
        real = torch.cat([each.flatten() for _, _, each in laid])
        back = torch.empty(sum(lengths), dtype=torch.int64)
        back[tokens[real]] = real.nonzero()[:, 0]
        return cls([shape for shape, _, _ in laid], put(tokens, place), put(real, place), put(back, place))

    def split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """(places, …) → (sequences, length, …) of each bucket."""
        parts = torch.split(flat, [shape.sequences * shape.width for shape in self.shapes])
        return [part.view(*shape[:2], *part.shape[1:]) for part, shape in zip(parts, self.shapes, strict=True)]

    def masks(self, row: Row, causal: bool, window: int | None) -> list[torch.Tensor | None]:
        """Which places of each bucket see which; None: all do."""
        return [
            _both(row.mask(shape.width, causal, window), None if shape.is_full else real[:, None, None])
            for shape, real in zip(self.shapes, self.split(self.real), strict=True)
        ]

    def biases(self, bias: torch.Tensor, masks: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """(1, heads, tokens, tokens) → the same of each bucket, and nothing of what is not to be seen."""
        parts = [bias[0][:, each[:, :, None], each[:, None]].transpose(0, 1) for each in self.split(self.tokens)]
        return [
            part if mask is None else part.masked_fill(~mask, float("-inf"))
            for part, mask in zip(parts, masks, strict=True)
        ]


def varlen(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
    is_causal: bool | None = None, sliding_window: int | None = None, position_bias: Any = None, **more: Any,
) -> tuple[Any, None]:  # fmt: skip
    """packing.attention in one launch, by torch's attention for sequences of any length, which takes no bias."""
    if position_bias is not None:
        return bucketed(
            module, query, key, value, attention_mask, scaling, is_causal, sliding_window, position_bias, **more
        )
    from torch.nn.attention.varlen import varlen_attn

    window = _window(packing.looks_back(module, is_causal, more), sliding_window)
    row = packing.current()
    bounds = row.kept("bounds", lambda: _bounds(row.lengths, query.device))
    longest = max(row.lengths)
    out: Any = varlen_attn(
        _by_token(query), _by_token(key), _by_token(value), bounds, bounds, longest, longest,
        scale=scaling, window_size=window, enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    return out[None], None


def bucketed(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
    is_causal: bool | None = None, sliding_window: int | None = None, position_bias: Any = None, **more: Any,
) -> tuple[Any, None]:  # fmt: skip
    """packing.attention in a launch for each bucket."""
    causal = packing.looks_back(module, is_causal, more)
    row = packing.current()
    buckets: Buckets = row.kept("buckets", lambda: Buckets.of(row.lengths, query.device))
    plainly_causal = causal and not sliding_window and position_bias is None
    masks: Sequence[torch.Tensor | None] = [None] * len(buckets.shapes)
    if not plainly_causal:
        masks = row.kept((causal, sliding_window), lambda: buckets.masks(row, causal, sliding_window))
    if position_bias is not None:
        masks = buckets.biases(position_bias, masks)
    heads = query.shape[1]
    states = (buckets.split(_spread(each, heads).index_select(0, buckets.tokens)) for each in (query, key, value))
    answers = [
        F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            attn_mask=mask, is_causal=plainly_causal, scale=scaling,
        ).transpose(1, 2).flatten(0, 1)
        for q, k, v, mask in zip(*states, masks, strict=True)
    ]  # fmt: skip
    return torch.cat(answers).index_select(0, buckets.back)[None], None


WAYS: Mapping[str, Callable[..., tuple[Any, None]]] = {"varlen": varlen, "buckets": bucketed}


def ways(model: Any) -> dict[str, Callable[[], Undo]]:
    """What may take the place of a packed model's attention where it is, the best first; none on a CPU."""
    if model.config._attn_implementation != packing.NAME or model.device.type != "cuda":
        return {}
    generation = torch.cuda.get_device_capability(model.device)[0]
    return {name: partial(put_in, model, name) for name in suited(generation, model.dtype)}


def suited(generation: int, dtype: torch.dtype) -> tuple[str, ...]:
    """The ways for a generation of GPUs and a precision: torch has the first from Ampere on, in half precision."""
    return ("varlen", "buckets") if generation >= AMPERE and dtype in HALVES else ("buckets",)


def put_in(model: Any, name: str) -> Undo:
    """Give a packed model another attention; what gives it packing's own again."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    full_name = f"{packing.NAME}_{name}"
    AttentionInterface.register(full_name, WAYS[name])
    AttentionMaskInterface.register(full_name, packing.no_mask)
    model.set_attn_implementation(full_name)
    return lambda: model.set_attn_implementation(packing.NAME)


def _window(causal: bool, window: int | None) -> tuple[int, int]:
    """How many tokens one sees before and behind it, -1: all; here a window counts the token itself."""
    wide = window - 1 if window else -1
    return wide, 0 if causal else wide


def _bounds(lengths: Sequence[int], place: torch.device) -> torch.Tensor:
    """Where each sequence begins, and where the last ends."""
    return put(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), place)


def _laid_out(starts: Sequence[int], lengths: Sequence[int]) -> tuple[Shape, torch.Tensor, torch.Tensor]:
    """A bucket's shape, its tokens, and which of them are real; a sequence is filled up with its last token."""
    longest = max(lengths)
    is_full = min(lengths) == longest
    width = longest if is_full else -(-longest // ALIGNED) * ALIGNED
    ends = torch.tensor(lengths)[:, None]
    columns = torch.arange(width).expand(len(lengths), width)
    tokens = torch.tensor(starts)[:, None] + torch.minimum(columns, ends - 1)
    return Shape(len(lengths), width, is_full), tokens, columns < ends


def _both(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return one & other if one is not None and other is not None else other if one is None else one


def _by_token(states: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, width) → (tokens, heads, width)."""
    return states[0].transpose(0, 1)


def _spread(states: torch.Tensor, heads: int) -> torch.Tensor:
    """The same with as many heads as queries have: for shared ones, older GPUs have no quick attention."""
    shared_by = heads // states.shape[1]
    return _by_token(states).repeat_interleave(shared_by, dim=1) if shared_by > 1 else _by_token(states)
