"""Texts told token by token add up to the text, and no piece of a character is ever told."""

import pytest

import tiny
from hfserve.runtimes.generation import Token
from hfserve.tasks.narration import PATIENCE, Events, Narrator
from hfserve.tasks.steps import Ended, Piece

TEXTS = [
    "The food was good, and the service was not bad.",
    "naïve café – Ωμέγα, 漢字かな 한국어 🙂👩‍👩‍👧 e\u0301 \u200d end",
    "  two  spaces,\n\nlines\tand a tab ",
    "🙂",
]


def _narrated(tokenizer, ids):
    narrator = Narrator(lambda some: tokenizer.decode(some, skip_special_tokens=True))
    pieces = [narrator.add(token, last=i == len(ids) - 1) for i, token in enumerate(ids)]
    return pieces, narrator


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_told_as_whole_characters(text):
    tokenizer = tiny._gpt2()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) >= len(text.encode()), "a token a byte: most characters have several"
    pieces, narrator = _narrated(tokenizer, ids)
    assert "".join(pieces) == narrator.text == tokenizer.decode(ids) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_spaces_of_sentence_pieces_are_kept():
    tokenizer = tiny._pieces()
    ids = tokenizer("the food was good in London", add_special_tokens=False)["input_ids"]
    pieces, narrator = _narrated(tokenizer, ids)
    assert len(pieces) > 5
    assert narrator.text == tokenizer.decode(ids)
    assert any(piece.startswith(" ") for piece in pieces[1:])


def test_bytes_that_never_become_a_character_are_told_in_the_end():
    tokenizer = tiny._gpt2()
    broken = tokenizer("é")["input_ids"][:1]
    pieces, narrator = _narrated(tokenizer, broken * (PATIENCE + 3) + tokenizer("ok")["input_ids"])
    assert narrator.text == tokenizer.decode(broken * (PATIENCE + 3) + tokenizer("ok")["input_ids"])
    assert pieces[-1] == "k" and pieces[-2].endswith("o")
    assert "".join(pieces[:PATIENCE]), "they do not hold the text up for ever"


def test_the_last_event_says_how_the_text_ended():
    tokenizer = tiny._gpt2()
    decode = tokenizer.decode
    events = Events(
        lambda ids: decode(ids, skip_special_tokens=True), frozenset([7]), shown=lambda text: f"<{text}>",
        text_of=lambda token: decode([token]),
    )  # fmt: skip
    a, b = tokenizer("ab")["input_ids"]
    first = events.of(Piece(Token(a, -0.5, ((b, -1.5),))))
    assert first["index"] == 1 and first["details"] is None and first["generated_text"] is None
    assert first["token"] == {"id": a, "text": "a", "logprob": -0.5, "special": False}
    assert first["top_tokens"] == [{"id": b, "text": "b", "logprob": -1.5, "special": False}]
    last = events.of(Piece(Token(b), Ended("length", 2, 5, 3, 0.25, 0.5)))
    assert last["generated_text"] == "<ab>"
    assert last["details"] == {
        "finish_reason": "length", "generated_tokens": 2, "input_length": 5, "seed": 3,
        "seconds_to_first_token": 0.25, "seconds": 0.5,
    }  # fmt: skip
