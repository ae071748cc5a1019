"""Vectors of texts: those of a text's tokens, or one for the text, as sentence-transformers or the request has it.

A folder that sentence-transformers saved says itself how its vectors are made (modules.json).
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput, LoadError, first_line
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from hfserve.tasks.forms import too_long

log = logging.getLogger(__name__)


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


class TextVectors:
    """A model without a head; calling it gives the vectors of the tokens of several encoded texts."""

    def __init__(self, model_dir: Path, options: Options) -> None:
        modules = _modules(model_dir)
        folder = model_dir / modules[0]["path"] if modules else model_dir
        self._model = EncoderModel(
            _auto_class(folder), folder, options, output=lambda answer: answer[0], per_token=True
        )
        self._encode = self._model.encode
        self._sentences = _sentences(model_dir, modules, options) if modules else None

    def __call__(self, encoded: Sequence[dict[str, list[int]]]) -> list[torch.Tensor]:
        """Of each text the vectors of its tokens, (tokens, width)."""
        return self._model(encoded)

    def own(self, pooling: str | None) -> Sentences | None:
        """How the folder makes vectors, where the request leaves that to the folder."""
        return self._sentences if pooling is None else None

    def encode(
        self, text: str, place: str, pooling: str | None, *, longest: int | None, truncation: bool
    ) -> tuple[dict[str, list[int]], bool]:
        """The model's inputs for a text, and whether something of it was cut."""
        own = self.own(pooling)
        if own:
            text, longest = own.text(text), min((most for most in (longest, own.longest) if most), default=None)
        encoded, cut = self._encode(text, None, longest=longest)
        if cut and not truncation:
            raise too_long(place, min(longest or self._encode.limit, self._encode.limit))
        if not encoded["input_ids"]:
            raise InvalidInput(f"{place} has no tokens, so there is nothing to give vectors of")
        return encoded, cut

    def pooled(self, tokens: torch.Tensor, pooling: str | None, normalize: bool | None) -> torch.Tensor:
        """One vector of those of a text's tokens: the folder's own way, or by a pooling."""
        own = self.own(pooling)
        vector = own.vector(tokens) if own else _POOLINGS[str(pooling)](tokens)
        usual = bool(own and own.normalize)
        return unit(vector) if (usual if normalize is None else normalize) else vector


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
            _dense(model_dir / each["path"], options) if each["kind"] == "Dense" else unit
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
        raise LoadError(f"{folder} did not load: {first_line(error)}") from error
    shift = 0 if bias is None else bias.float()
    return lambda vector: activation(weight @ vector + shift)


def unit(vector: torch.Tensor) -> torch.Tensor:
    """The vector of length 1 in the same direction."""
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
