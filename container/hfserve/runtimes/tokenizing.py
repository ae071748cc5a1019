"""Text to token ids, by the `tokenizers` encoder itself: no tensors, no padding, safe from many threads."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hfserve.errors import LoadError, first_line
from hfserve.settings import Options

UNLIMITED = 1 << 20
LONGEST_FIRST = "longest_first"
MOST_LENGTHS = 32
"""Lengths that clients choose with max_length for which an encoder is kept."""


SAMPLES = (
    "I love this.",
    "It was not what I had hoped for, but the people were kind and I would come again.",
    "Paris",
    "The quick brown fox jumps over the lazy dog, while the rain falls on the roofs of the old town by the river; " * 2,
)
"""Sentences of several lengths, on which ways to run a model are tried."""


HEIRS = {"TapexTokenizer": "bart"}
"""Tokenizers that transformers 5 dropped, and the type of model whose tokenizer splits texts alike."""


class NoFastTokenizer(LoadError):
    """The tokenizer is written in Python alone; only transformers' pipeline can use it."""


@contextlib.contextmanager
def or_fail() -> Iterator[None]:
    """For tasks that transformers has no pipeline for: without a fast tokenizer nothing can serve them."""
    try:
        yield
    except NoFastTokenizer as error:
        raise LoadError(str(error)) from error


class Encoder:
    """A model's tokenizer; `limit` is the most tokens the model takes, special ones included.

    `tokenizer` is transformers' own, for reading alone: its encoder is not safe from several threads.
    """

    def __init__(self, model_dir: Path, config: Any, options: Options) -> None:
        tokenizer = load_tokenizer(model_dir, options)
        if not getattr(tokenizer, "is_fast", False):
            raise NoFastTokenizer(f"{type(tokenizer).__name__} has no fast form; save the model with a tokenizer.json")
        self.limit = _limit(tokenizer, config)
        self.pad = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "token_type_ids": 0}
        self._names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in _names(tokenizer)]
        self.tokenizer = tokenizer
        self._cutters: dict[tuple[int, int, str], Tokenizer] = {}
        self._cut = _copy(tokenizer.backend_tokenizer)
        self._side = tokenizer.truncation_side
        self._cut.enable_truncation(self.limit, direction=self._side)

    def __call__(self, text: str, pair: str | None, *, longest: int | None = None) -> tuple[dict[str, list[int]], bool]:
        """The model's inputs for one text (or pair), cut to the limit, and whether something was cut."""
        encoding = self.encode(text, pair, longest=longest)
        return self.inputs(encoding), bool(encoding.overflowing)

    def encode(
        self, text: str | list[str], pair: str | None = None, *,
        longest: int | None = None, overlap: int = 0, cut: str = LONGEST_FIRST,
    ) -> Any:  # fmt: skip
        """The encoding of one text (or pair, or list of words): `overflowing` holds what was cut off, in pieces.

        `overlap` is how many tokens a piece repeats of the one before; `cut` names which text of a pair is cut.
        """
        words = isinstance(text, list)
        encoding = self._cut.encode(text, pair, is_pretokenized=words)
        length = min(longest or self.limit, self.limit)
        if len(encoding.ids) <= length and not (encoding.overflowing and (overlap, cut) != (0, LONGEST_FIRST)):
            return encoding
        return self._cutter(length, overlap, cut).encode(text, pair, is_pretokenized=words)

    def bare(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        return list(self._cut.encode(text, add_special_tokens=False).ids)

    def inputs(self, encoding: Any) -> dict[str, list[int]]:
        """The model's inputs by name."""
        columns = {
            "input_ids": encoding.ids,
            "token_type_ids": encoding.type_ids,
            "attention_mask": encoding.attention_mask,
        }
        return {name: columns[name] for name in self._names}

    def _cutter(self, length: int, overlap: int, cut: str) -> Tokenizer:
        cutter = self._cutters.get((length, overlap, cut))
        if cutter is None:
            cutter = _copy(self._cut)
            cutter.enable_truncation(length, stride=overlap, strategy=cut, direction=self._side)
            if len(self._cutters) < MOST_LENGTHS:
                self._cutters[length, overlap, cut] = cutter
        return cutter


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _names(tokenizer: Any) -> list[str]:
    return list(tokenizer.model_input_names)


def load_tokenizer(model_dir: Path, options: Options) -> Any:
    """A model's tokenizer; raises LoadError when there is none or it cannot be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(model_dir), trust_remote_code=options.trust_remote_code, local_files_only=True, **_heir(model_dir)
        )
    except Exception as error:
        raise LoadError(f"the tokenizer did not load: {first_line(error)}") from error
    refuse_made_up(tokenizer, model_dir)
    return tokenizer


def _heir(model_dir: Path) -> dict[str, str]:
    """What transformers has to be told when the class that the files name is no longer there."""
    file = model_dir / "tokenizer_config.json"
    named = json.loads(file.read_bytes()).get("tokenizer_class") if file.is_file() else None
    return {"tokenizer_type": HEIRS[named]} if named in HEIRS else {}


def refuse_made_up(tokenizer: Any, model_dir: Path) -> None:
    """Raise LoadError when transformers found no tokenizer and made one of special tokens, which reads nothing."""
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise LoadError(f"{model_dir.name}/ has no tokenizer: save the model's tokenizer there too")


def first_position(config: Any) -> int:
    """The number of a sequence's first position: RoBERTa's family counts from after the padding id."""
    if getattr(config, "position_embedding_type", "absolute") == "absolute" and config.model_type in OFFSET_FAMILIES:
        return int(config.pad_token_id or 0) + 1
    return 0


def _limit(tokenizer: Any, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or UNLIMITED
    return int(min(positions - first_position(config), tokenizer.model_max_length))


OFFSET_FAMILIES = frozenset(
    [
        "roberta",
        "camembert",
        "xlm-roberta",
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "mpnet",
        "longformer",
        "data2vec-text",
        "ibert",
        "xmod",
        "mra",
        "layoutlmv3",
        "lilt",
        "luke",
    ]
)
