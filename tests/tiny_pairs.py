"""Tiny models for the tasks that compare texts or read tables, made as those of tiny.py are."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import tiny

FUNCTIONS = {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"}


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name into a directory, and return the directory."""
    return tiny.save(_BUILDERS[name], path)


def _tapas(**changes: Any) -> Callable[[], tuple[Any, ...]]:
    def parts() -> tuple[Any, ...]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab.txt"
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]"]
            file.write_text("\n".join(dict.fromkeys([*special, *tiny._wordpiece().get_vocab()])))
            words = hf.TapasTokenizer(str(file), model_max_length=96)
        config = hf.TapasConfig(**{**tiny.SIZES, "vocab_size": len(words), **changes})
        model = hf.TapasForQuestionAnswering(config).eval()
        # One that sees columns, rows and numbers, and chooses some of the cells
        torch.nn.init.normal_(model.output_weights, std=0.5)
        return model, words

    return parts


_TAPEX = tiny._bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class _TapexWords:
    """A tokenizer in the files that TAPEX has on the Hub, which transformers 4 reads."""

    def save_pretrained(self, path: Path) -> None:
        (path / "vocab.json").write_text(json.dumps(_TAPEX))
        (path / "merges.txt").write_text("#version: 0.2\n")
        about = {"tokenizer_class": "TapexTokenizer", "do_lower_case": True, "max_cell_length": 15}
        (path / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": 96}))


def _tapex() -> tuple[Any, ...]:
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = hf.BartConfig(**tiny._HALVES, vocab_size=len(_TAPEX), **ids)
    model = hf.BartForConditionalGeneration(config).eval()
    unreadable = [i for piece, i in _TAPEX.items() if not piece.isascii() and piece != "Ġ"]
    model.generation_config.update(**ids, max_length=16, num_beams=2, suppress_tokens=unreadable)
    return model, _TapexWords()


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "text-ranking": tiny._text("BertForSequenceClassification", hf.BertConfig, tiny._wordpiece, num_labels=1),
    "text-ranking-roberta": tiny._text(
        "RobertaForSequenceClassification", hf.RobertaConfig, tiny._roberta, num_labels=1
    ),
    "multiple-choice": tiny._text("BertForMultipleChoice", hf.BertConfig, tiny._wordpiece),
    "multiple-choice-roberta": tiny._text("RobertaForMultipleChoice", hf.RobertaConfig, tiny._roberta),
    "multiple-choice-distilbert": tiny._text(
        "DistilBertForMultipleChoice", hf.DistilBertConfig, tiny._wordpiece, **tiny._DISTIL
    ),
    "multiple-choice-albert": tiny._text("AlbertForMultipleChoice", hf.AlbertConfig, tiny._albert, embedding_size=16),
    "table-question-answering": _tapas(
        num_aggregation_labels=4, aggregation_labels=FUNCTIONS, no_aggregation_label_index=0
    ),
    "table-question-answering-cells": _tapas(),
    "table-question-answering-tapex": _tapex,
}
NAMES = tuple(_BUILDERS)
