"""Token packing: the sequences of a batch lie side by side in one row, unpadded, each attending to itself only.

A packed encoder is called like any other, with a padded batch: it takes the padding out before its layers and puts it
back behind them, so that every head works as it is. Measured on CPU, padding in order of arrival more than doubles the
tokens of a batch of eight. Whether a packed pass says what a padded one does is for the caller to check.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F

NAME = "hfserve_packed"
ROUND = 32
"""Tokens to which a batch is filled up, so that the shapes, and the memory kept for each, stay few."""

SQUARE = 512
"""Tokens of a row at most where every token is masked against every other."""

BEYOND = ("softcap", "s_aux")
"""What some families ask of their attention, and the function here does not do."""

ABSENT = object()
"""What an object has of its own where it has only its class's."""

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Row:
    """The sequences of a pass: how long they are, and the position of each token in its own."""

    lengths: Sequence[int]
    positions: torch.Tensor
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[slice]:
        """Where each sequence lies."""
        return [slice(start, end) for start, end in pairwise(accumulate(self.lengths, initial=0))]

    @property
    def owner(self) -> torch.Tensor:
        """The number of the sequence that each token is of, (tokens,)."""
        lengths = torch.tensor(self.lengths, device=self.positions.device)
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    def mask(self, length: int, causal: bool, window: int | None) -> torch.Tensor | None:
        """Which tokens of a sequence see which, None: all do."""
        key = (length, causal, window if window and window < length else None)
        if key[1:] == (False, None):
            return None
        mask: torch.Tensor = self.kept(key, lambda: _mask(*key, self.positions.device))
        return mask

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is made once, for every layer of a pass asks for the same few."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


_row: ContextVar[Row] = ContextVar("row")
_only: ContextVar[int | None] = ContextVar("only", default=None)


class Packed:
    """Stands in for an encoder's `forward`: a padded batch goes in and comes out, a row of tokens goes through."""

    def __init__(self, base: Any, first_position: int, most_tokens: int | None = None) -> None:
        self.most_tokens = most_tokens
        self.base = base
        self._forward = type(base).forward
        self.takes = inspect.signature(self._forward).parameters.keys()
        self._first_position = first_position

    def __call__(
        self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, decoder_input_ids: Any = None, **_: Any
    ) -> Any:
        """The encoder's own answer; behind `only`, its hidden states are of those tokens alone."""
        if "decoder_input_ids" in self.takes and decoder_input_ids is None:
            decoder_input_ids = _shifted(input_ids, self.base.config.decoder_start_token_id)
        columns = {
            "input_ids": input_ids, "token_type_ids": token_type_ids, "decoder_input_ids": decoder_input_ids,
        }  # fmt: skip
        real = attention_mask.bool()
        lengths = real.sum(1).tolist()
        answer = self.run({name: column[real] for name, column in columns.items() if column is not None}, lengths)
        hidden = answer.last_hidden_state[0, : sum(lengths)]
        only = _only.get()
        if only is not None:
            answer.last_hidden_state = hidden[input_ids[real] == only][None]
            return answer
        answer.last_hidden_state = torch.nn.utils.rnn.pad_sequence(hidden.split(lengths), batch_first=True)
        if getattr(answer, "pooler_output", None) is not None:
            answer.pooler_output = self._pooled(answer.last_hidden_state)
        return answer

    def run(self, columns: dict[str, Any], lengths: list[int]) -> Any:
        """What the encoder says of a row: `columns`, (tokens,) each, of sequences of these lengths."""
        # A lone sequence runs as it is: filling it up would cost the most where nothing else is waiting.
        filler = -sum(lengths) % ROUND if len(lengths) > 1 else 0
        row = self.row([*lengths, filler] if filler else lengths, columns["input_ids"].device)
        inputs = {name: F.pad(column, (0, filler))[None] for name, column in columns.items()}
        inputs |= {"position_ids": row.positions, "attention_mask": torch.ones_like(row.positions)}
        more = {"use_cache": False} if "use_cache" in self.takes else {}
        taken = {name: value for name, value in inputs.items() if name in self.takes}
        token = _row.set(row)
        try:
            return self._forward(self.base, **self._masked(taken, row), **more)
        finally:
            _row.reset(token)

    def row(self, lengths: Sequence[int], device: Any) -> Row:
        """How sequences of these lengths lie in a row."""
        positions = torch.cat([torch.arange(length) for length in lengths])[None] + self._first_position
        return Row(lengths, positions.to(device))

    def _masked(self, inputs: dict[str, Any], row: Row) -> dict[str, Any]:
        return inputs

    def _pooled(self, hidden: Any) -> Any:
        """The pooler's word on each sequence; ALBERT's is a bare layer with its activation beside it."""
        pooler = self.base.pooler
        if isinstance(pooler, torch.nn.Linear):
            return self.base.pooler_activation(pooler(hidden[:, 0]))
        return pooler(hidden)


class PackedByMask(Packed):
    """The same for an encoder with an attention of its own: a mask keeps the sequences of a row apart.

    Relative positions are right as they are, for tokens of a sequence are as far apart in the row as without it.
    """

    def _masked(self, inputs: dict[str, Any], row: Row) -> dict[str, Any]:
        least = torch.finfo(self.base.dtype).min
        apart = torch.zeros(1, 1, *([len(row.positions[0])] * 2), dtype=self.base.dtype, device=row.positions.device)
        return inputs | {"attention_mask": apart.masked_fill(~_together(row), least)}


def by_attention(model: Any, first_position: int) -> Undo:
    """Pack an encoder that takes its attention from transformers' registry."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if not model._can_set_attn_implementation():
        raise NotImplementedError("the model has an attention of its own")
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, no_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    base = model.base_model
    undo = overridden(
        (base, "forward", Packed(base, first_position)),
        *((module, "forward", partial(_at_positions, module)) for module in base.modules() if _numbers_itself(module)),
    )

    def undo_all() -> None:
        undo()
        model.set_attn_implementation(before)

    return undo_all


def by_mask(model: Any, first_position: int) -> Undo:
    """Pack an encoder that takes a mask of tokens against tokens, as MPNet does."""
    base = model.base_model
    return overridden((base, "forward", PackedByMask(base, first_position, SQUARE)))


def by_made_mask(model: Any, first_position: int) -> Undo:
    """Pack an encoder that makes such a mask itself, as DeBERTa does."""
    base = model.base_model
    return overridden(
        (base, "forward", Packed(base, first_position, SQUARE)),
        (base.encoder, "get_attention_mask", lambda mask: _together(_row.get())),
    )


WAYS = {"attention": by_attention, "mask": by_mask, "made mask": by_made_mask}
"""The ways to pack an encoder, the fastest first."""


def packed(model: Any) -> Packed | None:
    """What stands in for the encoder of a packed model."""
    found = vars(getattr(model, "base_model", model)).get("forward")
    return found if isinstance(found, Packed) else None


def is_packed(model: Any) -> bool:
    """Whether the model is packed."""
    return packed(model) is not None


@contextmanager
def only(token: int | None) -> Iterator[None]:
    """Let a packed encoder give its head the hidden states of one kind of token alone, in a single row."""
    before = _only.set(token)
    try:
        yield
    finally:
        _only.reset(before)


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
    is_causal: bool | None = None, sliding_window: int | None = None, position_bias: Any = None, **more: Any,
) -> tuple[Any, None]:  # fmt: skip
    """(1, heads, tokens, width) each → (1, tokens, heads, width): a sequence attends to itself only."""
    causal = looks_back(module, is_causal, more)
    row = _row.get()
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for length, part in zip(row.lengths, row.parts, strict=True):
        mask = row.mask(length, causal, sliding_window) if sliding_window or position_bias is not None else None
        if position_bias is not None:
            bias = position_bias[:, :, part, part]
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        out[:, part] = F.scaled_dot_product_attention(
            query[:, :, part], key[:, :, part], value[:, :, part], attn_mask=mask,
            is_causal=causal and mask is None, scale=scaling, enable_gqa=key.shape[1] != query.shape[1],
        ).transpose(1, 2)  # fmt: skip
    return out, None


def looks_back(module: Any, is_causal: bool | None, more: Mapping[str, Any]) -> bool:
    """Whether a token sees only those before it; raises NotImplementedError for what no attention here does."""
    if any(more.get(name) is not None for name in BEYOND):
        raise NotImplementedError(f"attention with {' or '.join(BEYOND)}")
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def current() -> Row:
    """The row of the pass under way."""
    return _row.get()


def no_mask(*arguments: Any, **options: Any) -> None:
    """Packed sequences need no mask."""


def _mask(length: int, causal: bool, window: int | None, device: Any) -> torch.Tensor:
    """A window counts the token itself: of 1, a token sees itself alone."""
    ahead = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    seen = ahead >= 0 if causal else torch.ones_like(ahead, dtype=torch.bool)
    return seen if window is None else seen & (ahead.abs() < window)


def _together(row: Row) -> torch.Tensor:
    """(1, 1, tokens, tokens): whether two tokens are of one sequence."""
    return (row.owner[:, None] == row.owner)[None, None]


def _shifted(ids: torch.Tensor, start: int) -> torch.Tensor:
    """What a decoder reads beside its encoder when nothing else is given: the same, one later."""
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)


def _numbers_itself(module: Any) -> bool:
    """Whether positions are numbered within a module, unless they are told: those of BART and its kin."""
    return (
        isinstance(module, torch.nn.Embedding) and "position_ids" in inspect.signature(type(module).forward).parameters
    )


def _at_positions(module: Any, like: Any, *ignored: Any, **more: Any) -> Any:
    return type(module).forward(module, like, position_ids=_row.get().positions[0])


def overridden(*changes: tuple[Any, str, Any]) -> Undo:
    """Put something over what single objects have by a name; the function that takes it off again."""
    before = [(place, name, vars(place).get(name, ABSENT)) for place, name, _ in changes]
    for place, name, function in changes:
        setattr(place, name, function)

    def undo() -> None:
        for place, name, function in before:
            delattr(place, name) if function is ABSENT else setattr(place, name, function)

    return undo
