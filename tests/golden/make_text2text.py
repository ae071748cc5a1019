"""Writes text2text.json: what the pipelines of transformers 4.57.6 answer, for versions that have none.

    python make_text2text.py MODELS > text2text.json

MODELS holds the tiny models of the names below, as tests/tiny.py saves them. Run it where transformers 4.57.6 is
installed.
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers

T5, BART, MARIAN, NLLB = "text2text-generation-t5", "summarization-bart", "translation-marian", "translation-nllb"
FOOD = "The food was good in London, and the service was not bad in Paris."
TEXTS = [
    FOOD, "a", "", "  spaces\tand\nlines  ", "Zoë ate 🍕 in 東京: naïve, ½ price — ж漢字ß!",
    "price 12.5 ; taste , not-bad 's", "of the taste of the food of the service of London",
]  # fmt: skip
LONG = " ".join(f"In {1800 + 7 * i} the food of London was {['good', 'bad', 'odd'][i % 3]}." for i in range(20))
SHORT = {"max_new_tokens": 10}
CHOICES = [
    {"num_beams": 1}, {"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}, {"num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": True}, {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.5},
    {"num_beams": 1, "repetition_penalty": 2.5}, {"no_repeat_ngram_size": 2}, {"min_length": 8}, {"min_new_tokens": 9},
    {"length_penalty": -2.0}, {"clean_up_tokenization_spaces": True}, {"do_sample": False, "num_beams": 5},
]  # fmt: skip
LENGTHS = [
    {"max_length": 12},
    {"max_new_tokens": 3},
    {"max_length": 9, "max_new_tokens": 14},
    {"max_length": 15, "num_beams": 1},
]
LANGUAGES = {"src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}


def _of(inputs, **parameters):
    return {"inputs": inputs, "parameters": parameters}


def _requests(**always):
    yield from (_of(text, **SHORT, **always) for text in TEXTS)
    yield _of(TEXTS, **SHORT, **always)
    yield _of(TEXTS[:2], num_return_sequences=2, **SHORT, **always)
    yield from (_of(FOOD, **{**SHORT, **choice, **always}) for choice in CHOICES)
    yield from (_of(FOOD, **length, **always) for length in LENGTHS)
    yield _of([FOOD], **always)
    yield _of(LONG, truncation=True, **SHORT, **always)
    yield _of([LONG, "a", FOOD], truncation=True, num_beams=1, **SHORT, **always)
    yield _of([], **always)


REQUESTS = [
    *((T5, "text2text-generation", request) for request in _requests()),
    (T5, "text2text-generation", _of(LONG, truncation=False, **SHORT)),
    *((T5, task, _of(text)) for task in ("summarization", "translation", "translation_en_to_fr") for text in TEXTS[:3]),
    (T5, "translation_en_to_fr", _of([FOOD, LONG], truncation=True, **SHORT)),
    *((BART, "summarization", request) for request in _requests()),
    (BART, "text2text-generation", _of(FOOD)),
    *((MARIAN, "translation", request) for request in _requests()),
    (MARIAN, "translation_en_to_de", _of(FOOD)),
    (MARIAN, "translation", _of(FOOD, src_lang="en", tgt_lang="de")),
    *((NLLB, "translation", request) for request in _requests(**LANGUAGES)),
    (NLLB, "translation", _of(FOOD, src_lang="fra_Latn", tgt_lang="deu_Latn")),
    (NLLB, "text2text-generation", _of(FOOD)),
]


def readable(folder: Path, place: Path) -> Path:
    """A copy whose tokenizer is named as version 4 names it."""
    copy = place / folder.name
    shutil.copytree(folder, copy)
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text())
    generic = config["tokenizer_class"] == "TokenizersBackend"
    config["tokenizer_class"] = "PreTrainedTokenizerFast" if generic else f"{config['tokenizer_class']}Fast"
    config["additional_special_tokens"] = config.pop("extra_special_tokens", [])
    file.write_text(json.dumps(config))
    return copy


def main(folder: Path) -> None:
    """Write every answer, a line each."""
    assert transformers.__version__ == "4.57.6", transformers.__version__
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        copies = {name: readable(folder / name, Path(place)) for name in (T5, BART, MARIAN, NLLB)}
        pipes, rows = {}, []
        for name, task, request in REQUESTS:
            if (name, task) not in pipes:
                pipes[name, task] = transformers.pipeline(task, model=str(copies[name]), device="cpu")
            answer = pipes[name, task](request["inputs"], **request["parameters"])
            rows.append(json.dumps([name, task, request, answer], ensure_ascii=False))
    print("[\n" + ",\n".join(rows) + "\n]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
