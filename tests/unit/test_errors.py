import inspect
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hfserve import errors
from hfserve.errors import MAX_BODY, InvalidInput, ModelError, NotReady, Overloaded, ServeError, error_body

DRAWN = re.findall(r"── ([A-Z]\w+)(?: (\d{3}))?(?: exit (\d))?", errors.__doc__)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=3000)


def classes() -> dict[str, type]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: each for name, each in found if each.__module__ == errors.__name__}


def read(error: ServeError, request_id: str = "r-1") -> dict:
    body = error_body(error, request_id)
    assert len(body) <= MAX_BODY < 2048
    assert b"\n" not in body
    content = json.loads(body)
    assert list(content) == ["error"]
    return content["error"]


def test_an_error_has_one_shape():
    assert read(InvalidInput("the text is empty"), "abc") == {
        "status": 422, "type": "InvalidInput", "message": "the text is empty", "request_id": "abc",
    }  # fmt: skip


def test_an_error_without_a_message_says_what_its_class_says():
    assert read(NotReady())["message"] == "The model is not ready to answer; retry later."
    assert all(read(each())["message"] for each in classes().values() if issubclass(each, ServeError))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece", ["x", "é", "€", "😀", "\0", "\x1b[31m", '"', "\\", "\n", "\udcff", "word ", "a😀"], ids=ascii
)
@pytest.mark.parametrize("length", [1800, 1990, 2500, 100_000])
def test_a_long_message_is_cut_to_what_sagemaker_shows_and_no_shorter(piece, length):
    whole = (piece * length)[:length]
    message = read(ModelError(whole))["message"]
    if message != whole:
        assert message.endswith("…") and whole.startswith(message[:-1])
        longer = json.dumps(whole[: len(message) + 20])
        assert len(longer) > 1700, "more of the message would have fitted"


@given(ANY_TEXT)
@example("\ud800 alone")
@example("😀" * 3000)
def test_whatever_the_message_the_body_is_small_valid_json(text):
    message = read(ModelError(text))["message"]
    assert not text or message == text or text.startswith(message.removesuffix("…"))


def test_the_longest_request_id_there_is_leaves_room_for_words():
    assert read(ModelError("why " * 1000), "i" * 128)["message"].startswith("why why")


@pytest.mark.parametrize(("name", "status", "exit_status"), DRAWN)
def test_the_docstring_draws_the_tree_as_it_is(name, status, exit_status):
    drawn = classes()[name]
    if status:
        assert issubclass(drawn, ServeError) and drawn.status == int(status)
    else:
        assert issubclass(drawn, errors.StartError) and drawn.exit_status == 3
    assert exit_status in ("", "3")


def test_the_docstring_draws_every_class():
    assert {name for name, *_ in DRAWN} == set(classes())


def test_only_errors_that_pass_by_themselves_ask_to_be_retried():
    assert Overloaded().headers == NotReady().headers == {"Retry-After": "1"}
    patient = {each for each in classes().values() if issubclass(each, ServeError) and each().headers}
    assert patient == {Overloaded, NotReady}
