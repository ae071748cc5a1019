"""Writes question_answering.json: what the pipeline of transformers 4.57.6 answers, for versions that have none.

    python make_question_answering.py MODELS > question_answering.json

MODELS holds the tiny models of the names below, as tests/tiny.py saves them. Run it where transformers 4.57.6 is
installed.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers

NAMES = ("question-answering", "question-answering-roberta")
ADA = "My name is Ada Lovelace. I was born in London in 1815, and I write notes on engines: see page 42!"
FOOD = "The food was good, not bad; the service of the place in Paris is a matter of taste, and of price."
WORLD = "Zoë ate a 🍕 in 東京 (naïve café, ½ price), then flew to São Paulo — 12.5 km — with Ærø & 李明 👩‍🚀. Ünïcode!"
SPACES = "  The\tfood   was\n\ngood  in\u00a0London ,  and the price 'd   fall .  "
TOWNS = ["London", "Paris", "Oslo", "Rome", "Lima", "Kyoto", "Cairo", "Quito"]
LONG = " ".join(
    f"In {1800 + 7 * i}, the {word} of {TOWNS[i % 8]} was {['good', 'bad', 'dear', 'cheap', 'odd'][i % 5]}; "
    f"{TOWNS[(5 * i + 3) % 8]} had {i * i % 97} of them, so they said."
    for i, word in enumerate(["food", "service", "price", "taste", "weather"] * 6)
)
LINES = "\n".join(
    f"- {town}: {3 * i + 1} cafés, {'🍕' * (i + 1)} and 日本語 no. {i}" for i, town in enumerate(TOWNS * 2)
)


def _asking(question, context, **parameters):
    return {"inputs": {"question": question, "context": context}, "parameters": parameters}


BOTH = [{"question": "Where was Ada born?", "context": ADA}, {"question": "Was it good?", "context": FOOD}]
REQUESTS = [
    _asking("Where was Ada born?", ADA),
    _asking("What is a matter of taste?", FOOD),
    _asking("What did Zoë eat?", WORLD),
    _asking("東京 🍕?", WORLD, top_k=2),
    _asking("What fell?", SPACES),
    _asking("What fell?", SPACES, top_k=3, align_to_words=False),
    *(_asking("Where was Ada born?", ADA, top_k=k) for k in (1, 2, 3, 4, 5)),
    *(_asking("Where was Ada born?", ADA, max_answer_len=length) for length in (1, 2, 40)),
    _asking("Where was Ada born?", ADA, max_answer_len=1, top_k=3),
    _asking("Which?", FOOD, align_to_words=False),
    _asking("Which?", FOOD, align_to_words=False, top_k=4),
    _asking("Who wrote it?", FOOD, handle_impossible_answer=True),
    _asking("Who wrote it?", FOOD, handle_impossible_answer=True, top_k=5),
    _asking("Who wrote it?", LONG, handle_impossible_answer=True, top_k=3),
    _asking("Where was the food good?", LONG),
    _asking("Where was the food good?", LONG, top_k=5),
    _asking("Where?", LONG, doc_stride=5),
    _asking("Where?", LONG, doc_stride=0, max_seq_len=60, top_k=2),
    _asking("Where?", LONG, max_seq_len=70, doc_stride=30, max_answer_len=4),
    _asking("Where?", LONG, max_seq_len=50, padding="max_length", max_question_len=4),
    _asking("How many cafés?", LINES, top_k=3),
    _asking("How many cafés?", LINES, top_k=3, align_to_words=False, handle_impossible_answer=True),
    _asking(["Where was Ada born?"], ADA),
    _asking(["Where was Ada born?", "When?", "What does she write?"], ADA),
    _asking(["Where?", "When?"], LONG, top_k=2),
    _asking(["Where?", "Which food?"], [ADA, FOOD], max_answer_len=3),
    {"inputs": BOTH[:1]},
    {"inputs": BOTH},
    {"inputs": BOTH, "parameters": {"topk": 2, "truncation": True}},
    {"inputs": [*BOTH, {"question": "Where?", "context": LONG}, {"question": "🍕", "context": WORLD}]},
]


def _answer(pipe, inputs, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipe(**inputs, **parameters) if isinstance(inputs, dict) else pipe(inputs, **parameters)


def main():
    if transformers.__version__ != "4.57.6":
        raise SystemExit(f"transformers is {transformers.__version__}; these answers are those of 4.57.6")
    torch.set_num_threads(1)
    models = Path(sys.argv[1])
    answers = {}
    for name in NAMES:
        pipe = transformers.pipeline("question-answering", model=str(models / name), device="cpu")
        answers[name] = [_answer(pipe, each["inputs"], each.get("parameters", {})) for each in REQUESTS]
    golden = {"transformers": transformers.__version__, "requests": REQUESTS, "answers": answers}
    print(json.dumps(golden, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
