"""fill-mask: the likeliest tokens in the place of each mask of a text."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import LONG, TEXTS, EncoderModel
from hfserve.runtimes.tokenizing import Encoder
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, string, too_long
from hfserve.tasks.requests import FORMS, fields, parts
from hfserve.tasks.schemas.text import FillMaskParameters as Parameters

ANY_MASK = re.compile(r"\[MASK\]|<mask>")


class FillMask:
    """A masked language model; its answers have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForMaskedLM

        self.task = task
        self._options = options
        self._model = EncoderModel(AutoModelForMaskedLM, model_dir, options, only=_mask, examples=_examples)
        self._encode = self._model.encode
        self._tokenizer = self._encode.tokenizer

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded; every one has a mask."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = parse(Parameters, parameters, self._options)
        wanted = {"top_k": chosen.top_k, "targets": self._targets(chosen.targets)}
        texts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(text, place), chosen, wanted, place)
            for text, place in zip(texts, places(inputs, texts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """For each mask of each item, its likeliest tokens."""
        rows = self._model([item.data for item in items])
        return [self._filled(item, logits) for item, logits in zip(items, rows, strict=True)]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: a list of one text is answered as the text."""
        inputs, _ = fields(*parts(data), FORMS[self.task.name])
        return list(results) if isinstance(inputs, list) and len(inputs) != 1 else results[0]

    def _item(self, text: str, chosen: Parameters, wanted: dict[str, Any], place: str) -> Item:
        """A text with the model's own mask: [MASK] and <mask> mean the same to a client."""
        mask = str(self._tokenizer.mask_token)
        encoded, cut = self._encode(
            text if mask in text else ANY_MASK.sub(lambda _: mask, text),
            None,
            longest=chosen.tokenizer_kwargs.max_length,
        )
        if cut and not (chosen.truncation and chosen.tokenizer_kwargs.truncation):
            raise too_long(place, self._encode.limit)
        if self._tokenizer.mask_token_id not in encoded["input_ids"]:
            within = f" among the first {len(encoded['input_ids'])} tokens" if cut else ""
            raise InvalidInput(f"{place} has no mask{within}; write {mask} where a word is missing")
        return Item(encoded, wanted, "text", len(encoded["input_ids"]), place if cut else "")

    def _targets(self, targets: list[str] | None) -> list[int] | None:
        if targets is None:
            return None
        found: set[int] = set()
        for target in targets:
            known = self._tokenizer.backend_tokenizer.token_to_id(target)
            found.update(self._encode.bare(target)[:1] if known is None else [known])
        if not found:
            raise InvalidInput("parameters.targets: none of them is a token of the model")
        return sorted(found)

    def _filled(self, item: Item, logits: torch.Tensor) -> Any:
        """A list of propositions for one mask, a list of such lists for several."""
        ids, targets = item.data["input_ids"], item.parameters["targets"]
        masks = [place for place, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
        scores = logits.softmax(-1)
        scores = scores if targets is None else scores[:, targets]
        best, chosen = scores.topk(min(item.parameters["top_k"], scores.shape[-1]))
        filled = []
        for mask, values, picks in zip(masks, best.tolist(), chosen.tolist(), strict=True):
            tokens = picks if targets is None else [targets[pick] for pick in picks]
            filled.append([
                self._proposition(score, token, [*ids[:mask], token, *ids[mask + 1 :]], alone=len(masks) == 1)
                for score, token in zip(values, tokens, strict=True)
            ])  # fmt: skip
        return filled[0] if len(masks) == 1 else filled

    def _proposition(self, score: float, token: int, ids: list[int], *, alone: bool) -> dict[str, Any]:
        """Special tokens are left out, unless other masks are among them."""
        shown = [each for each in ids if each != self._tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self._tokenizer.decode([token]),
            "sequence": self._tokenizer.decode(shown, skip_special_tokens=alone),
        }


def _mask(encode: Encoder) -> int:
    """The token that stands for what is missing: the scores of all others over a vocabulary would fill the memory."""
    token: int | None = encode.tokenizer.mask_token_id
    if token is None:
        raise LoadError("the tokenizer has no mask token, which fill-mask needs; name it in tokenizer_config.json")
    return token


def _examples(model: EncoderModel) -> list[dict[str, list[int]]]:
    """A mask at either end, so that one is there whichever end is cut."""
    mask = model.encode.tokenizer.mask_token
    return [model.encode(f"{mask} {text} {mask}", None, longest=LONG)[0] for text in TEXTS]
