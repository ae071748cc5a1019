"""token-classification: the entities of texts, token by token or joined to words and groups."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import kind, parse, places, string, too_long
from hfserve.tasks.requests import FORMS, fields, parts
from hfserve.tasks.schemas.text import TokenClassificationParameters as Parameters
from hfserve.tasks.scores import Array, softmax


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that fits the model."""

    inputs: dict[str, list[int]]
    ids: list[int]
    offsets: list[tuple[int, int]]
    special: list[int]


@dataclass(frozen=True, slots=True)
class Token:
    """A token, where it stands, and the score of each label."""

    word: str
    start: int
    end: int
    index: int
    within_word: bool
    scores: Array


class TokenClassification:
    """A token classifier; its answers have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForTokenClassification

        self.task = task
        self._options = options
        self._model = EncoderModel(AutoModelForTokenClassification, model_dir, options, per_token=True)
        self._encode = self._model.encode
        self._labels = self._model.config.id2label
        self._tokenizer = self._encode.tokenizer
        self._marks_subwords = bool(getattr(self._tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None))

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded in one piece or several."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = parse(Parameters, parameters, self._options)
        self._check_stride(chosen.stride)
        texts = inputs if _many(inputs, chosen) else [inputs]
        return [self._item(text, chosen, place) for text, place in zip(texts, places(inputs, texts), strict=True)]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The entities of each item."""
        pieces = [piece.inputs for item in items for piece in item.data[1] if piece.ids]
        rows = iter(self._model(pieces))
        return [self._entities(item, rows) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """A list of entities for a text, a list of those for a list."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        return list(results) if _many(inputs, parse(Parameters, parameters)) else results[0]

    def _check_stride(self, stride: int | None) -> None:
        most = self._encode.limit - self._tokenizer.num_special_tokens_to_add()
        if stride is not None and stride >= most:
            raise InvalidInput(f"parameters.stride: has to be less than {most}, the tokens of a text read at once")

    def _item(self, text: Any, chosen: Parameters, place: str) -> Item:
        sentence, starts = _joined(text, chosen.delimiter, place) if chosen.is_split_into_words else (text, None)
        string(sentence, place)
        first = self._encode.encode(text, overlap=chosen.stride or 0)
        cut = bool(first.overflowing) and chosen.stride is None
        if cut and not chosen.truncation:
            raise too_long(place, self._encode.limit)
        encodings = [first] if cut else [first, *first.overflowing]
        pieces = [self._piece(encoding, starts) for encoding in encodings]
        wanted = chosen.model_dump(include={"aggregation_strategy", "ignore_labels"})
        cost = sum(len(piece.ids) for piece in pieces)
        return Item((sentence, pieces), wanted, "text", cost, place if cut else "")

    def _piece(self, encoding: Any, starts: list[int] | None) -> Piece:
        offsets = encoding.offsets
        if starts is not None:
            moves = [0 if word is None else starts[word] for word in encoding.word_ids]
            offsets = [(start + move, end + move) for (start, end), move in zip(offsets, moves, strict=True)]
        return Piece(self._encode.inputs(encoding), encoding.ids, offsets, encoding.special_tokens_mask)

    def _entities(self, item: Item, rows: Iterator[Any]) -> list[dict[str, Any]]:
        (sentence, pieces), chosen = item.data, item.parameters
        found = []
        for piece in pieces:
            tokens = list(self._tokens(sentence, piece, next(rows).numpy())) if piece.ids else []
            entities = self._aggregated(tokens, chosen["aggregation_strategy"])
            found += [entity for entity in entities if _label(entity) not in chosen["ignore_labels"]]
        return _apart(found) if len(pieces) > 1 else found

    def _tokens(self, sentence: str, piece: Piece, logits: Array) -> Iterator[Token]:
        words = self._tokenizer.convert_ids_to_tokens(piece.ids)
        for index, scores in enumerate(softmax(logits)):
            if piece.special[index]:
                continue
            start, end = piece.offsets[index]
            word, unknown = words[index], piece.ids[index] == self._tokenizer.unk_token_id
            within = not unknown and self._within_word(word, sentence, start, end)
            yield Token(sentence[start:end] if unknown else word, start, end, index, within, scores)

    def _within_word(self, word: str, sentence: str, start: int, end: int) -> bool:
        """Whether a token goes on with the word before it; where tokens do not tell, a word begins at a space."""
        if self._marks_subwords:
            return len(word) != end - start
        return start > 0 and " " not in sentence[start - 1 : start + 1]

    def _aggregated(self, tokens: list[Token], strategy: str) -> list[dict[str, Any]]:
        if strategy in _OF_WORD:
            entities = [self._word(word, strategy) for word in _words(tokens)]
        else:
            entities = [
                {**self._best(token.scores), "index": token.index, "word": token.word} | _span([token])
                for token in tokens
            ]
        return entities if strategy == "none" else [self._group(group) for group in _groups(entities)]

    def _word(self, tokens: list[Token], strategy: str) -> dict[str, Any]:
        scores = _OF_WORD[strategy](np.stack([token.scores for token in tokens]))
        return {**self._best(scores), "word": self._spelled([token.word for token in tokens]), **_span(tokens)}

    def _group(self, entities: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "entity_group": entities[0]["entity"].split("-", 1)[-1],
            "score": float(np.nanmean([entity["score"] for entity in entities])),
            "word": self._spelled([entity["word"] for entity in entities]),
            "start": entities[0]["start"],
            "end": entities[-1]["end"],
        }

    def _best(self, scores: Array) -> dict[str, Any]:
        best = int(scores.argmax())
        return {"entity": self._labels[best], "score": float(scores[best])}

    def _spelled(self, words: list[str]) -> str:
        return str(self._tokenizer.convert_tokens_to_string(words))


def _many(inputs: Any, chosen: Parameters) -> bool:
    """A list is many texts; where texts are lists of words, a list of lists is."""
    if not isinstance(inputs, list):
        return False
    return not chosen.is_split_into_words or all(isinstance(each, list) for each in inputs)


def _joined(words: Any, delimiter: str, place: str) -> tuple[str, list[int]]:
    """The text that words make, and where each begins."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"{place} is {kind(words)}; with is_split_into_words it has to be a list of strings")
    lengths = (len(word) + len(delimiter) for word in words)
    return delimiter.join(words), list(itertools.accumulate(lengths, initial=0))


def _span(tokens: list[Token]) -> dict[str, int]:
    return {"start": tokens[0].start, "end": tokens[-1].end}


def _words(tokens: list[Token]) -> list[list[Token]]:
    words: list[list[Token]] = []
    for token in tokens:
        if words and token.within_word:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _groups(entities: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours of one kind; B- begins a new group."""
    groups: list[list[dict[str, Any]]] = []
    for entity in entities:
        begins, name = _tag(entity["entity"])
        if groups and not begins and name == _tag(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and the kind of entity."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _label(entity: dict[str, Any]) -> str:
    return str(entity.get("entity_group", entity.get("entity")))


def _apart(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of entities that overlap, as pieces of a text do, the longer; of equally long ones the more certain."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept[-1] = max(kept[-1], entity, key=lambda one: (one["end"] - one["start"], one["score"]))
        else:
            kept.append(entity)
    return kept


_OF_WORD: dict[str, Callable[[Array], Array]] = {
    "first": lambda scores: np.asarray(scores[0]),
    "average": lambda scores: np.asarray(np.nanmean(scores, axis=0)),
    "max": lambda scores: np.asarray(scores[scores.max(axis=1).argmax()]),
}
"""The scores of a word from those of its tokens."""
