"""Text to token ids, by the `tokenizers` encoder itself: no tensors, no padding, safe from many threads."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hfserve.errors import LoadError
from hfserve.runtimes.torch import first_line

UNLIMITED = 1 << 20
MOST_LENGTHS = 32
"""Lengths that clients choose with max_length for which an encoder is kept."""


class NoFastTokenizer(LoadError):
    """The tokenizer is written in Python alone; only transformers' pipeline can use it."""


class Encoder:
    """A model's tokenizer; `limit` is the most tokens the model takes, special ones included."""

    def __init__(self, model_dir: Path, config: Any, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(model_dir), trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:
            raise LoadError(f"the tokenizer did not load: {first_line(error)}") from error
        if not getattr(tokenizer, "is_fast", False):
            raise NoFastTokenizer(f"{type(tokenizer).__name__} has no fast form; save the model with a tokenizer.json")
        self.limit = _limit(tokenizer, config)
        self.pad = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "token_type_ids": 0}
        self._names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in _names(tokenizer)]
        self._shorter: dict[int, Tokenizer] = {}
        self._cut = _copy(tokenizer.backend_tokenizer)
        self._cut.enable_truncation(self.limit)

    def __call__(self, text: str, pair: str | None, *, longest: int | None = None) -> tuple[dict[str, list[int]], bool]:
        """The model's inputs for one text (or pair), cut to the limit, and whether something was cut."""
        encoding = self._cut.encode(text, pair)
        cut = bool(encoding.overflowing)
        if longest is not None and longest < len(encoding.ids):
            encoding, cut = self._shortened(text, pair, longest), True
        columns = {
            "input_ids": encoding.ids,
            "token_type_ids": encoding.type_ids,
            "attention_mask": encoding.attention_mask,
        }
        return {name: columns[name] for name in self._names}, cut

    def _shortened(self, text: str, pair: str | None, longest: int) -> Any:
        encoder = self._shorter.get(longest)
        if encoder is None:
            encoder = _copy(self._cut)
            encoder.enable_truncation(longest)
            if len(self._shorter) < MOST_LENGTHS:
                self._shorter[longest] = encoder
        return encoder.encode(text, pair)


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _names(tokenizer: Any) -> list[str]:
    return list(tokenizer.model_input_names)


def _limit(tokenizer: Any, config: Any) -> int:
    """Positions start after the padding id in RoBERTa's family, which takes that many away."""
    positions = getattr(config, "max_position_embeddings", None) or UNLIMITED
    if getattr(config, "position_embedding_type", "absolute") == "absolute" and config.model_type in OFFSET_FAMILIES:
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length))


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
