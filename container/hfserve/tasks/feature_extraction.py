"""feature-extraction: vectors of a text's tokens, or one vector for the text.

A folder that sentence-transformers saved says itself how its vectors are made (modules.json), and so it answers with
one vector for a text, unless the request chooses a pooling.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import Encoder
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import Truncation, parse, places, string, too_long
from hfserve.tasks.requests import FORMS, fields, parts

log = logging.getLogger(__name__)

Pooling = Literal["none", "mean", "cls"]


class Parameters(BaseModel):
    """What a request may choose.

    Without `pooling`, a sentence-transformers folder pools in its own way and others give the vectors of tokens; with
    `normalize`, a vector has length 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Pooling | None = None
    normalize: bool | None = None
    truncation: bool = True
    tokenize_kwargs: Truncation = Truncation()


@dataclass(frozen=True, slots=True)
class Sentences:
    """How a sentence-transformers folder makes one vector of a text."""

    longest: int | None
    lower: bool
    prompt: str
    poolings: tuple[str, ...]
    layers: tuple[Callable[[torch.Tensor], torch.Tensor], ...]
    normalize: bool

    def text(self, text: str) -> str:
        """What the tokenizer reads."""
        text = (self.prompt + text).strip()
        return text.lower() if self.lower else text

    def vector(self, tokens: torch.Tensor) -> torch.Tensor:
        """One vector of those of a text's tokens."""
        vector = torch.cat([_POOLINGS[name](tokens) for name in self.poolings])
        for layer in self.layers:
            vector = layer(vector)
        return vector


class FeatureExtraction:
    """A model without a head; the vectors of tokens have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        modules = _modules(model_dir)
        folder = model_dir / modules[0]["path"] if modules else model_dir
        self._model = runtime.load(_auto_class(folder), folder, options)
        self._model.config.use_cache = False
        self._encode = Encoder(folder, self._model.config, options)
        self._sentences = _sentences(model_dir, modules, options) if modules else None

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = parse(Parameters, parameters)
        if chosen.normalize and chosen.pooling in {None, "none"} and not self._own(chosen.pooling):
            raise InvalidInput('parameters.normalize: is for one vector a text; choose the pooling "mean" or "cls"')
        texts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(text, place), chosen, place)
            for text, place in zip(texts, places(inputs, texts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The vector of each item, or those of its tokens."""
        rows = runtime.forward(
            self._model, [item.data for item in items], self._encode.pad, output=lambda answer: answer[0],
            per_token=True,
        )  # fmt: skip
        return [self._vectors(row, **item.parameters) for row, item in zip(rows, items, strict=True)]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: tokens stand in a list of one, as of a batch."""
        inputs, _ = fields(*parts(data), FORMS[self.task.name])
        return list(results) if isinstance(inputs, list) else results[0]

    def _own(self, pooling: Pooling | None) -> Sentences | None:
        """How the folder makes vectors, where the request leaves that to the folder."""
        return self._sentences if pooling is None else None

    def _item(self, text: str, chosen: Parameters, place: str) -> Item:
        own, longest = self._own(chosen.pooling), chosen.tokenize_kwargs.max_length
        if own:
            text, longest = own.text(text), min((most for most in (longest, own.longest) if most), default=None)
        encoded, cut = self._encode(text, None, longest=longest)
        if cut and not (chosen.truncation and chosen.tokenize_kwargs.truncation):
            raise too_long(place, self._encode.limit)
        if not encoded["input_ids"]:
            raise InvalidInput(f"{place} has no tokens, so there is nothing to give vectors of")
        wanted = chosen.model_dump(include={"pooling", "normalize"})
        return Item(encoded, wanted, "text", len(encoded["input_ids"]))

    def _vectors(self, tokens: torch.Tensor, pooling: Pooling | None, normalize: bool | None) -> Any:
        own = self._own(pooling)
        if not own and pooling in {None, "none"}:
            return [tokens.tolist()]
        vector = own.vector(tokens) if own else _POOLINGS[str(pooling)](tokens)
        usual = bool(own and own.normalize)
        return (_unit(vector) if (usual if normalize is None else normalize) else vector).tolist()


def _auto_class(folder: Path) -> Any:
    """Of a model with a decoder only its encoder reads texts; the T5 family has a class for that."""
    from transformers import AutoModel, AutoModelForTextEncoding

    encoders = {"t5", "mt5", "umt5", "t5gemma"}
    return AutoModelForTextEncoding if _read(folder / "config.json").get("model_type") in encoders else AutoModel


# sentence-transformers


def _modules(model_dir: Path) -> list[dict[str, Any]]:
    """The modules of a sentence-transformers folder, empty when it is none or has one that is not known here."""
    listed = _read(model_dir / "modules.json", [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise LoadError(f"{model_dir / 'modules.json'} is not a list of modules")
    modules = [
        {"path": each.get("path", ""), "kind": str(each.get("type")).rpartition(".")[2]}
        for each in sorted(listed, key=lambda each: each.get("idx", 0))
    ]
    kinds = [each["kind"] for each in modules]
    if kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Dense", "Normalize"}:
        return modules
    if kinds:
        log.warning("modules.json has %s, not all known here: texts get the vectors of their tokens", ", ".join(kinds))
    return []


def _sentences(model_dir: Path, modules: list[dict[str, Any]], options: Options) -> Sentences:
    transformer, pooling = (model_dir / each["path"] for each in modules[:2])
    normalize = modules[-1]["kind"] == "Normalize"
    about = _read(min(transformer.glob("sentence_*_config.json"), default=transformer / "sentence_bert_config.json"))
    prompts = _read(model_dir / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), "")
    if prompt and not _read(pooling / "config.json").get("include_prompt", True):
        raise LoadError(f"{pooling} leaves the default prompt out of its vectors, which is not supported")
    return Sentences(
        longest=about.get("max_seq_length"),
        lower=bool(about.get("do_lower_case")),
        prompt=prompt,
        poolings=_poolings(pooling / "config.json"),
        layers=tuple(
            _dense(model_dir / each["path"], options) if each["kind"] == "Dense" else _unit
            for each in (modules[2:-1] if normalize else modules[2:])
        ),
        normalize=normalize,
    )


def _poolings(file: Path) -> tuple[str, ...]:
    """Which poolings a folder chooses; vectors of several stand one after another."""
    config = _read(file)
    named = config.get("pooling_mode")
    if named:
        chosen = {named} if isinstance(named, str) else set(named)
    else:
        chosen = {name for name, key in _POOLING_KEYS.items() if config.get(key, name == "mean")}
    if not chosen or not chosen <= _POOLINGS.keys():
        raise LoadError(f"{file} chooses no pooling of {', '.join(_POOLINGS)}")
    return tuple(name for name in _POOLINGS if name in chosen)


def _dense(folder: Path, options: Options) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer of its own behind the pooling."""
    from safetensors.torch import load_file

    name = str(_read(folder / "config.json").get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise LoadError(f"{folder} has the activation {name}; there are {', '.join(_ACTIVATIONS)}")
    activation = _ACTIVATIONS[name]
    pickled = runtime.only_pickles(folder, options)
    try:
        weights = (
            torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
            if pickled
            else load_file(folder / "model.safetensors")
        )
        weight, bias = weights["linear.weight"].float(), weights.get("linear.bias")
    except Exception as error:
        raise LoadError(f"{folder} did not load: {runtime.first_line(error)}") from error
    shift = 0 if bias is None else bias.float()
    return lambda vector: activation(weight @ vector + shift)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


def _weighted_mean(tokens: torch.Tensor) -> torch.Tensor:
    """Later tokens weigh more."""
    weights = torch.arange(1, len(tokens) + 1, dtype=tokens.dtype)
    return (weights @ tokens) / weights.sum()


def _read(file: Path, otherwise: Any = None) -> Any:
    """What a JSON file holds; raises LoadError when it is not JSON."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {} if otherwise is None else otherwise
    except ValueError as error:
        raise LoadError(f"{file} is not JSON: {error}") from error


_POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.amax(0),
    "mean": lambda tokens: tokens.mean(0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(0) / len(tokens) ** 0.5,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda tokens: tokens[-1],
}
"""One vector of those of the tokens, in the order in which sentence-transformers joins several."""

_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Tanh": torch.tanh,
    "Identity": lambda vector: vector,
    "ReLU": torch.relu,
    "GELU": torch.nn.functional.gelu,
    "Sigmoid": torch.sigmoid,
}
