"""The workload, the same on every machine: a stream of texts, and a model of DistilBERT's size to classify them.

The weights are random: speed and memory do not depend on what a model has learnt. Each word is one token, so that a
text's length in tokens is as intended.
"""

import itertools
import os
import random
import shutil
from pathlib import Path

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


def texts() -> list[str]:
    """The texts, in the order in which they are sent."""
    chance = random.Random(SEED)
    words = _words()[:WORDS_IN_USE]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return [_sentence(chance.choices(words, cum_weights=weights, k=length(chance) - 3)) for _ in range(COUNT)]


def length(chance: random.Random) -> int:
    """Tokens of one text."""
    return min(max(round(chance.lognormvariate(0, SPREAD) * MEDIAN), SHORTEST), LONGEST)


def build_model(path: Path) -> Path:
    """The model's directory, made at first use: config, tokenizer and 66 million weights as safetensors."""
    if path.exists():
        return path
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers as hf

    torch.manual_seed(SEED)
    hf.logging.disable_progress_bar()
    names = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    config = hf.DistilBertConfig(vocab_size=VOCABULARY, **names)
    tokenizer = hf.DistilBertTokenizer(vocab={piece: i for i, piece in enumerate(_pieces())}, model_max_length=512)
    model = hf.DistilBertForSequenceClassification(config).eval()
    _spread_scores(model, tokenizer)
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    return unfinished.rename(path)


def _spread_scores(model, tokenizer) -> None:
    """Scale the last layer until the scores differ from text to text, or a wrong answer would look like a right one."""
    import torch

    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts()[:64]])
        scale = 1 / logits.std(0).mean()
        model.classifier.weight *= scale
        model.classifier.bias.copy_((model.classifier.bias - logits.mean(0)) * scale)


def _sentence(words: list[str]) -> str:
    return " ".join(words).capitalize() + "."


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
