"""What the benchmark of generated texts tells is what happened; no server takes part."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import generation
from generation import Asked, Told


def told(tokens, *heard, sent=0.0, text=None, error=""):
    return Told(Asked("a prompt", tokens), sent, list(heard), "word " * tokens if text is None else text, error)


def row(target, tokens_per_s, **more):
    return {"round": 1, "target": target, "tokens_per_s": tokens_per_s, "foreign_cores": 0.0, "errors": {}, **more}


def results(*rows):
    return {
        "date": "today", "machine": {"cpu": "some", "cores": 2, "memory_gib": 4}, "same": {},
        "versions": {"torch": "2", "transformers": "5"},
        "settings": {"requests": 48, "clients": 16, "rounds": 3}, "failed": {}, "rows": rows,
    }  # fmt: skip


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


def test_the_requests_are_the_same_every_time_and_as_long_as_is_said():
    asked = generation.requests()
    assert asked == generation.requests() and asked != generation.requests(seed=1)
    prompts, outputs = [len(each.prompt.split()) for each in asked], [each.tokens for each in asked]
    assert (min(prompts), max(prompts), sum(prompts) / len(prompts)) == (10, 64, 37)
    assert (min(outputs), max(outputs), sum(outputs) / len(outputs)) == (8, 128, 68)


def test_every_word_is_a_token_of_its_own():
    words = generation.words()
    assert len(set(words)) == len(words) == generation.VOCABULARY - len(generation.SPECIAL)


def test_only_right_answers_count():
    answers = [told(10, 2.0), told(30, 4.0), told(10, 1.0, text="too short"), told(10, error="status 503")]
    figures = generation.figures(answers, seconds=4.0)
    assert figures["tokens_per_s"] == 10.0
    assert figures["errors"] == {"wrong length": 1, "status 503": 1}
    assert figures["first_p50_ms"] is None and figures["gap_p50_ms"] is None


def test_a_stream_is_timed_piece_by_piece():
    figures = generation.figures([told(4, 1.5, 1.6, 1.7, 2.0, sent=1.0)], seconds=1.0)
    assert figures["p50_ms"] == 1000.0 and figures["first_p50_ms"] == 500.0
    assert figures["gap_p50_ms"] == pytest.approx(100.0) and figures["gap_p99_ms"] == pytest.approx(300.0)


def test_events_are_heard_until_the_client_leaves():
    lines = [b'data: {"generated_text": null}\n', b"\n", b'data: {"generated_text": "a b"}\n', b"\n", b"data: [DONE]\n"]
    whole, part = told(2, text=""), told(2, text="")
    generation.listen(lines, whole)
    generation.listen(lines, part, leave_after=1)
    assert (len(whole.heard), whole.text) == (2, "a b")
    assert (len(part.heard), part.is_right) == (1, False)


def test_a_failure_in_a_stream_is_an_error():
    broken = told(2, text="")
    generation.listen([b'data: {"error": {"status": 500}}\n'], broken)
    assert broken.error and not broken.is_right


def test_the_table_marks_what_is_missed_and_what_was_not_measured():
    text = generation.markdown(results(row("hfserve", 300.0), row("toolkit", 60.0), row("transformers", 300.0)))
    assert line(text, "tokens/s ÷ toolkit").endswith("| 5 | yes |")
    assert line(text, "tokens/s ÷ transformers").endswith("| 1 | **no** |")
    assert line(text, "tokens/s of streams").endswith("| not measured |  |")
    assert "Disturbed" not in text


def test_rounds_are_combined_by_their_median_and_errors_are_summed():
    rows = [row("hfserve", rate, errors={"status 503": 1}, foreign_cores=rate / 100) for rate in (10.0, 30.0, 20.0)]
    assert generation.found(rows)["hfserve"] == {
        "round": 1, "tokens_per_s": 20.0, "foreign_cores": 0.3, "errors": 3,
    }  # fmt: skip
    assert "**Disturbed:**" in generation.markdown(results(*rows))


def test_texts_are_compared_with_the_baselines_in_the_first_round():
    first = [row(key, 1.0, texts=texts) for key, texts in (("hfserve", ["a b", "a c"]), ("toolkit", [" a b", "a b"]))]
    assert generation.same_texts([*first, row("hfserve", 1.0, texts=["", ""])]) == {"hfserve": (1, 2)}


def test_counts_are_read_from_the_metrics():
    metrics = (
        b'# HELP hfserve_kv_blocks_used 9\nhfserve_kv_blocks_used 3.0\nhfserve_kv_blocks 8.0\nother{a="b c"} 1.0\n'
    )
    assert generation.counts(metrics) == {"tokens": 0.0, "cancelled": 0.0, "blocks": 3.0}
