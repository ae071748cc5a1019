"""The demo model answers as its card says, and was never shown the sentences that judge it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "container/hfserve/demo"
HELD_OUT = ROOT / "examples/demo_model/held_out.tsv"


@pytest.fixture(scope="module")
def train() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_train", ROOT / "examples/demo_model/train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def classify():
    tokenizer = AutoTokenizer.from_pretrained(DEMO, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(DEMO, local_files_only=True).eval()

    def answers(texts: list[str]) -> list[tuple[str, float]]:
        with torch.no_grad():
            scores = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(dim=1)
        return [(model.config.id2label[int(row.argmax())], float(row.max())) for row in scores]

    return answers


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    return [line.split("\t") for line in HELD_OUT.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def accuracy(classify, rows) -> float:
    answers = classify([text for _, text in rows])
    return sum(answer == label for (answer, _), (label, _) in zip(answers, rows, strict=True)) / len(rows)


def test_held_out_sentences_are_fifty_of_each_label(rows):
    labels = [label for label, _ in rows]
    assert (labels.count("POSITIVE"), labels.count("NEGATIVE"), len(rows)) == (50, 50, 100)


def test_nine_in_ten_held_out_sentences_are_labelled_rightly(accuracy):
    assert accuracy >= 0.9


def test_the_card_states_the_measured_accuracy(accuracy):
    stated = re.findall(r"\b[01]\.\d\d\b(?= \||\n---)", (DEMO / "README.md").read_text())
    assert stated == [f"{accuracy:.2f}"] * 2


@pytest.mark.parametrize(
    ("text", "label"),
    [("I love this", "POSITIVE"), ("I hate this", "NEGATIVE"), ("This is awful", "NEGATIVE")],
)
def test_a_first_request_is_answered_rightly_and_surely(classify, text, label):
    [(answer, score)] = classify([text])
    assert answer == label and score >= 0.99


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("not good", "NEGATIVE"),
        ("not bad", "POSITIVE"),
        ("I don't like it", "NEGATIVE"),
        ("it never disappoints", "POSITIVE"),
    ],
)
def test_negation_is_understood(classify, text, label):
    assert classify([text])[0][0] == label


def test_the_weights_are_three_megabytes_at_most():
    assert (DEMO / "model.safetensors").stat().st_size <= 3_000_000


def test_no_held_out_sentence_is_among_the_training_sentences(train, rows):
    def words(text: str) -> str:
        return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "")))

    kept_away = {words(text) for _, text in rows}
    for text, _ in train.lessons() + train.training_texts():
        assert words(text) not in kept_away
        assert kept_away.isdisjoint(words(sentence) for sentence in re.split(r"[.!?]+", text))
