"""OpenVINO in the place of a packed encoder's layers: a row of tokens goes in, their hidden states come out.

The embeddings and layers are traced once and compiled twice: with a stream of one thread for each lane, and with all
threads for a request that is alone. Heads stay with torch. Nothing here chooses a precision: that is told.
"""

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hfserve.runtimes import device, packing
from hfserve.runtimes.packing import Packed, Undo

log = logging.getLogger(__name__)

INT8 = "int8"
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

SHAPES = 64
"""Shapes of rows for which OpenVINO keeps what it prepared; its own default is 5000."""

TRACED = 48
"""Tokens of the row that a model is traced with, of two sequences."""

Columns = dict[str, torch.Tensor]


class Layers:
    """Stands in for `Packed.run`: the same answer, computed by OpenVINO."""

    def __init__(self, packed: Packed, network: Any, precision: str) -> None:
        self._packed = packed
        cores = device.cores()
        self._narrow = _compiled(network, precision, streams=cores)
        self._wide = _compiled(network, precision, streams=1) if cores > 1 else self._narrow
        self._requests = threading.local()

    def __call__(self, columns: Columns, lengths: list[int]) -> Any:
        """The hidden states of a row, of a little more than its tokens."""
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        request = self._request()
        for place, column in enumerate(row_of(self._packed, columns, lengths)):
            _fill(request.get_input_tensor(place), column)
        request.infer()
        hidden = torch.from_numpy(request.get_output_tensor(0).data)
        pooled = hidden if getattr(self._packed.base, "pooler", None) is not None else None  # the caller pools it
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=hidden, pooler_output=pooled)

    def _request(self) -> Any:
        """Of this thread, for as many threads as it may use."""
        network = self._narrow if torch.get_num_threads() == 1 else self._wide
        name = "narrow" if network is self._narrow else "wide"
        if not hasattr(self._requests, name):
            setattr(self._requests, name, network.create_infer_request())
        return getattr(self._requests, name)


def row_of(packed: Packed, columns: Columns, lengths: list[int]) -> list[Any]:
    """What the network takes, (1, tokens) each: ids, positions, whose each token is, and types where there are."""
    filler = -sum(lengths) % packing.ROUND
    row = packed.row([*lengths, filler] if filler else lengths, "cpu")
    filled = {name: F.pad(column, (0, filler))[None] for name, column in columns.items()}
    ids = filled["input_ids"]
    types = [filled.get("token_type_ids", torch.zeros_like(ids))] if "token_type_ids" in packed.takes else []
    return [each.numpy() for each in (ids, row.positions, row.owner[None], *types)]


def traced(model: Any) -> Any:
    """The network of a packed model. Raises NotImplementedError for one that has none, and what tracing raises."""
    openvino = _openvino()
    packed = packing.packed(model)
    if packed is None or not packed.takes >= {"position_ids", "attention_mask"}:
        raise NotImplementedError("it runs encoders that can be packed and are told positions")
    ids = torch.zeros(TRACED, dtype=torch.long)
    example = tuple(map(torch.from_numpy, row_of(packed, {"input_ids": ids}, [TRACED // 3, TRACED - TRACED // 3])))
    with _plain_attention(model), torch.inference_mode(), _quiet():
        return openvino.convert_model(
            _Row(packed.base).eval(), example_input=example, input=[openvino.PartialShape([1, -1])] * len(example)
        )


def calibrated(model: Any, network: Any, run: Callable[[], Any]) -> Any:
    """The network in int8, as the rows that `run` makes the model compute call for."""
    with _quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
        rows = _rows(model, run)
        log.info("calibrating int8; this takes a minute or so", extra={"rows": len(rows)})
        return nncf.quantize(
            network, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
        )  # fmt: skip


def read(file: Path) -> Any:
    """A network that was saved."""
    return _openvino().Core().read_model(file)


def save(network: Any, file: Path) -> None:
    """Save a network for the next worker."""
    draft = file.with_name(f"draft-{threading.get_native_id()}-{file.name}")
    _openvino().save_model(network, draft, compress_to_fp16=False)
    for ending in (".bin", ".xml"):
        draft.with_suffix(ending).rename(file.with_suffix(ending))


def replace(model: Any, network: Any, precision: str) -> Undo:
    """Let OpenVINO compute the layers of a packed model, tokens against tokens; what undoes it."""
    packed = packing.packed(model)
    assert packed is not None
    return packing.overridden(
        (packed, "run", Layers(packed, network, precision)), (packed, "most_tokens", packing.SQUARE)
    )  # fmt: skip


def let_go(model: Any) -> None:
    """Free the weights that OpenVINO has its own copy of; what heads and poolers use stays."""
    base = model.base_model
    inside = {id(tensor) for name, tensor in base.named_parameters() if not name.startswith("pooler")}
    heads = (child for child in model.children() if child is not base) if base is not model else ()
    outside = {id(tensor) for head in heads for tensor in head.parameters()}
    for parameter in base.parameters():
        if id(parameter) in inside - outside:
            parameter.data = torch.empty(0, dtype=parameter.dtype)


class _Row(nn.Module):
    """An encoder that reads a row: tokens see those that have the same owner."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    def forward(self, ids: Any, positions: Any, owner: Any, *types: Any) -> Any:
        apart = torch.where(owner[:, None, :, None] == owner[:, None, None, :], 0.0, torch.finfo(torch.float32).min)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": apart}
        inputs |= dict(zip(("token_type_ids",), types, strict=False))
        return type(self.base).forward(self.base, **inputs).last_hidden_state


def _compiled(network: Any, precision: str, *, streams: int) -> Any:
    return _openvino().Core().compile_model(
        network, "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": device.cores(),
            "ENABLE_CPU_PINNING": False, "CPU_RUNTIME_CACHE_CAPACITY": SHAPES,
        },
    )  # fmt: skip


def _rows(model: Any, run: Callable[[], Any]) -> list[list[Any]]:
    """The rows that a packed model computes in `run`."""
    packed = packing.packed(model)
    assert packed is not None
    before, rows = packed.run, list[list[Any]]()

    def noted(columns: Columns, lengths: list[int]) -> Any:
        rows.append(row_of(packed, columns, lengths))
        return before(columns, lengths)

    undo = packing.overridden((packed, "run", noted), (packed, "most_tokens", packing.SQUARE))
    try:
        run()
    finally:
        undo()
    return rows


def _fill(tensor: Any, column: Any) -> None:
    """Copy a column into memory of OpenVINO's own: of Python's, it would wait for the GIL with locks in its hands."""
    tensor.shape = column.shape
    tensor.data[:] = column


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Let the model use torch's own attention for a while, which OpenVINO knows."""
    before = model.config._attn_implementation
    if before == packing.NAME:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what OpenVINO prints and warns of out of the log."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _openvino() -> Any:
    """The package; its companion would report to its makers that it is used."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
