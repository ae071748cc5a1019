"""Writes table_question_answering.json: what the pipeline of transformers 4.57.6 answers with a TAPEX model.

    python make_table_question_answering.py MODELS > table_question_answering.json

MODELS holds the tiny model of the name below, as tests/tiny_pairs.py saves it. Run it where transformers 4.57.6 and
pandas are installed.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

NAME = "table-question-answering-tapex"
SALES = {"City": ["Paris", "Rome"], "Sales": ["12", "7"]}
LINES = {
    "Name of it": ["Zoë ate 🍕 in 東京, and then flew on to São Paulo", "a", " ", "The FOOD was good"],
    "When": ["1 May 2010", "", "n/a", "not known to anybody who was asked about it"],
}
REQUESTS = [
    {"query": "How much did Rome sell?", "table": SALES},
    {"query": "What did PARIS sell", "table": SALES},
    {"query": ["Where?", "When was that?"], "table": SALES},
    {"query": "When?", "table": {"When": LINES["When"]}},
    {"query": "?", "table": {"Name of it": LINES["Name of it"][:2]}},
    {"query": "Who? 漢", "table": {"n": ["1", "2", "3"], "Ä": ["x", "y", "z"]}},
]


def main():
    if transformers.__version__ != "4.57.6":
        raise SystemExit(f"transformers is {transformers.__version__}; these answers are those of 4.57.6")
    torch.set_num_threads(1)
    pipe = transformers.pipeline("table-question-answering", model=str(Path(sys.argv[1]) / NAME), device="cpu")
    answers = [pipe(dict(request)) for request in REQUESTS]
    print(json.dumps({"requests": REQUESTS, "answers": {NAME: answers}}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
