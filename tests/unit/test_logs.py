import json
import logging
import re
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hfserve import logs
from hfserve.logs import JsonLines, fold, for_people, stamp

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def line(message="hello", *arguments, level=logging.INFO, exc_info=None, extra=None) -> str:
    logger = logging.getLogger("some.room")
    record = logger.makeRecord(logger.name, level, "file.py", 1, message, arguments, exc_info, extra=extra)
    return JsonLines("worker-0").format(record)


def event(*arguments, **more) -> dict:
    return json.loads(line(*arguments, **more))


def test_a_record_is_one_line_of_json():
    found = event("%d of %s", 2, "three", level=logging.WARNING, extra={"seconds": 0.5, "url": "http://x"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "warning", "source": "worker-0", "event": "2 of three", "seconds": 0.5, "url": "http://x",
    }  # fmt: skip


@given(ANY_TEXT)
@example("\ud800 alone")
def test_whatever_the_message_it_is_one_line_that_can_be_written(text):
    written = line("%s", text, extra={"detail": text}).encode()
    assert b"\n" not in written and b"\r" not in written
    assert set(json.loads(written)) == {"time", "level", "source", "event", "detail"}


def test_ordinary_text_is_kept_as_it_is():
    assert "größer 😀" in line("größer 😀")
    assert event("a\nb\t\x1b[31m\0")["event"] == "a\nb\t\x1b[31m\0"


def test_things_that_are_not_json_are_told_in_words():
    found = event("x", extra={"path": Path("/a/b"), "kind": int})
    assert (found["path"], found["kind"]) == ("/a/b", "<class 'int'>")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_every_line_is_json_that_a_strict_reader_reads(number):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads(line("x", extra={"seconds": number}), parse_constant=refuse)


def test_a_line_tells_which_request_it_belongs_to():
    assert "request_id" not in event()
    token = logs.request_id.set("r-7")
    try:
        assert event()["request_id"] == "r-7"
    finally:
        logs.request_id.reset(token)
    assert "request_id" not in event()


def test_a_failure_carries_its_traceback_in_the_same_line():
    try:
        raise ValueError("no\nway")
    except ValueError:
        written = line("it failed", level=logging.ERROR, exc_info=sys.exc_info())
    assert "\n" not in written
    found = json.loads(written)
    assert found["event"] == "it failed" and found["level"] == "error"
    assert found["traceback"].startswith("Traceback") and found["traceback"].endswith("ValueError: no\nway")


def test_the_clock_shows_utc_and_thousandths():
    assert stamp(0) == "1970-01-01T00:00:00.000Z"
    assert stamp(1_700_000_000.999999) == "2023-11-14T22:13:20.999Z"


def test_the_log_of_a_process_goes_to_its_output(capsys):
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.configure("worker-3", logging.INFO)
        logging.getLogger("room").info("seen", extra={"lanes": 2})
        logging.getLogger("room").debug("not seen")
        logging.getLogger("httpx").info("too much")
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
    (only,) = capsys.readouterr().out.splitlines()
    assert json.loads(only)["source"] == "worker-3" and json.loads(only)["lanes"] == 2


def test_an_event_that_a_process_printed_is_kept():
    printed = {"time": "t", "level": "error", "source": "worker-1", "event": "x", "n": 1}
    assert fold(json.dumps(printed), "elsewhere", "info") == printed


@pytest.mark.parametrize(
    "printed",
    ["plain words", '{"not": "an event"}', "{broken}", "[1]", "{}", '{"event": "cut off', '{"a":' * 50_000 + "}"],
    ids=lambda text: text[:20],
)
def test_anything_else_that_a_process_printed_is_wrapped(printed):
    found = fold(printed, "nginx", "warning")
    assert found.pop("time")
    assert found == {"level": "warning", "source": "nginx", "event": printed}


def test_people_read_a_time_a_source_and_words():
    shown = for_people({"time": stamp(0), "level": "info", "source": "worker-0", "event": "ready", "lanes": 2})
    assert shown == "00:00:00 worker-0   ready  lanes=2"


def test_people_are_told_of_trouble_and_see_its_traceback_as_lines():
    shown = for_people({"time": stamp(0), "level": "error", "source": "x", "event": "broke", "traceback": "Trace\n  a"})
    assert shown.splitlines() == ["00:00:00 x          ERROR: broke", "Trace", "  a"]


@pytest.mark.parametrize(
    "foreign",
    [
        {"event": "x"},
        {"event": None, "source": None},
        {"event": "x", "time": 1_700_000_000},
        {"event": "x", "time": None},
        {"event": "x", "level": 30},
        {"event": "x", "level": ["info"]},
        {"event": "x", "level": None},
        {"event": {"a": 1}, "traceback": ["a"]},
    ],
    ids=str,
)
def test_an_event_in_anothers_style_is_readable_too(foreign):
    assert str(foreign["event"]) in for_people(fold(json.dumps(foreign), "worker-0"))


@given(ANY_TEXT)
@example("\ud800 alone")
def test_whatever_a_process_printed_can_be_written_on(text):
    folded = fold(json.dumps({"event": text}), "worker-0")
    for_people(folded).encode()
