"""Token packing: the sequences of a batch lie side by side in one row, unpadded, each attending to itself only.

Through transformers' registries of attention functions and masks, so that any encoder that uses them can be packed;
the caller checks that a packed pass says what a padded one does. Measured on CPU, padding in order of arrival more than
doubles the tokens of a batch of eight.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F

NAME = "hfserve_packed"
ROUND = 32
"""Tokens to which a batch is filled up, so that the shapes, and the memory kept for each, stay few."""

_lengths: ContextVar[list[int]] = ContextVar("lengths")
_whole: ContextVar[bool] = ContextVar("whole")


class PackedBase(torch.nn.Module):
    """An encoder that takes one row of packed sequences; unless all tokens are asked for, it gives each one's first.

    Heads of classifiers look at the first token only: of shape (sequences, 1, width), they work as they are.
    """

    def __init__(self, base: Any, first_position: int) -> None:
        super().__init__()
        self.base = base
        self.first_position = first_position

    def forward(self, input_ids: Any, token_type_ids: Any = None, **ignored: Any) -> Any:
        """last_hidden_state of shape (1, tokens, width), or (sequences, 1, width) with the pooler's output."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        lengths = _lengths.get()
        positions = torch.cat([torch.arange(length) for length in lengths])[None] + self.first_position
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.base(input_ids=input_ids, position_ids=positions.to(input_ids.device), **more).last_hidden_state
        if _whole.get():
            return BaseModelOutputWithPooling(last_hidden_state=hidden)
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        first = hidden[0, starts][:, None]
        return BaseModelOutputWithPooling(last_hidden_state=first, pooler_output=self._pooled(first))

    def _pooled(self, first: Any) -> Any:
        """The pooler's word on first tokens; ALBERT's is a bare layer with its activation beside it."""
        pooler = getattr(self.base, "pooler", None)
        if isinstance(pooler, torch.nn.Linear):
            return self.base.pooler_activation(pooler(first[:, 0]))
        return pooler(first) if pooler else None


def pack(model: Any, first_position: int) -> Callable[[], None]:
    """Let the model's encoder take packed sequences; the function that undoes it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)
    before = model.config._attn_implementation
    name = model.base_model_prefix
    base = getattr(model, name)
    model.set_attn_implementation(NAME)
    setattr(model, name, PackedBase(base, first_position))

    def undo() -> None:
        setattr(model, name, base)
        model.set_attn_implementation(before)

    return undo


def is_packed(model: Any) -> bool:
    """Whether `pack` was called on the model."""
    return isinstance(getattr(model, getattr(model, "base_model_prefix", ""), None), PackedBase)


def forward(
    model: Any, encoded: Sequence[dict[str, list[int]]], output: Callable[[Any], Any], *, per_token: bool
) -> list[Any]:
    """What the packed model says of each sequence; to be called within inference mode."""
    lengths = [len(each["input_ids"]) for each in encoded]
    filler = -sum(lengths) % ROUND if len(encoded) > 1 else 0
    inputs = {
        name: torch.tensor([[token for each in encoded for token in each[name]] + [0] * filler], device=model.device)
        for name in encoded[0]
        if name != "attention_mask"
    }
    _lengths.set([*lengths, filler] if filler else lengths)
    _whole.set(per_token)
    answer = output(model(**inputs)).float().cpu()
    return list(answer[0].split([*lengths, filler])[: len(encoded)]) if per_token else list(answer[: len(encoded)])


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **ignored: Any
) -> tuple[Any, None]:
    """(1, heads, tokens, width) each → (1, tokens, heads, width): a sequence attends to itself only."""
    out = torch.empty_like(query)
    start = 0
    for length in _lengths.get():
        part = slice(start, start + length)
        start += length
        out[:, :, part] = F.scaled_dot_product_attention(
            query[:, :, part], key[:, :, part], value[:, :, part], scale=scaling
        )
    return out.transpose(1, 2).contiguous(), None


def no_mask(*arguments: Any, **options: Any) -> None:
    """Packed sequences need no mask."""
