"""Batch transform against a small container: what it is sent, what is stored, and how a job ends."""

import gzip
import json
import struct
import threading

import pytest
from local_test.errors import ValidationException
from local_test.records import RECORD_IO, BadRecords, json_path
from local_test.s3 import Store
from local_test.transform import TransformFailed, check, run

from small_container import SmallContainer


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def upper(asked):
    return (
        (400, b'{"error": "bad"}') if b"bad" in asked.body else (200, asked.body.upper(), asked.headers.get("Accept"))
    )


def job_of(*, source=None, output=None, **members):
    where = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/in/"}}
    return {
        "TransformJobName": "job", "ModelName": "model",
        "TransformInput": {"DataSource": where, "ContentType": "text/plain", **(source or {})},
        "TransformOutput": {"S3OutputPath": "s3://data/out", "Accept": "text/plain", **(output or {})},
        **members,
    }  # fmt: skip


def transform(store, job, answer=upper, parameters=(404, b"")):
    """Run it; the container with what it was asked, what `update` was told, and the container's variables."""
    container, told, variables = SmallContainer(lambda asked: answer(asked) if asked.body else parameters), {}, {}

    def launch(environment):
        variables.update(environment)
        return container

    try:
        run(job, {}, store, launch, told.update)
    finally:
        assert container.stopped or not variables
        container.stop()
    return container, told, variables


def test_every_object_comes_back_as_one_of_its_own(store):
    store.put("s3://data/in/a.txt", b"one")
    store.put("s3://data/in/deep/b.txt", b"two")
    container, told, variables = transform(store, job_of())
    assert told["TransformJobStatus"] == "Completed"
    assert store.list("s3://data/out") == ["s3://data/out/a.txt.out", "s3://data/out/deep/b.txt.out"]
    assert store.get("s3://data/out/deep/b.txt.out") == b"TWO"
    assert variables == {"SAGEMAKER_BATCH": "true"}
    assert {asked.headers["Content-Type"] for asked in container.invoked} == {"text/plain"}
    assert {asked.headers["Accept"] for asked in container.invoked} == {"text/plain"}


@pytest.mark.parametrize(
    ("strategy", "bodies"),
    [("SingleRecord", [b"one", b"two", b"three"]), ("MultiRecord", [b"one\ntwo\r\nthree"])],
)
def test_lines_go_one_by_one_or_together(store, strategy, bodies):
    store.put("s3://data/in/a.txt", b"one\ntwo\r\nthree")
    job = job_of(source={"SplitType": "Line"}, output={"AssembleWith": "Line"}, BatchStrategy=strategy)
    container, _, variables = transform(store, job)
    assert [asked.body for asked in container.invoked] == bodies
    assert store.get("s3://data/out/a.txt.out").split() == [b"ONE", b"TWO", b"THREE"]
    assert variables["SAGEMAKER_BATCH_STRATEGY"] in ("SINGLE_RECORD", "MULTI_RECORD")


def test_a_mini_batch_holds_as_many_lines_as_the_payload_allows(store):
    line = b"x" * 300_000 + b"\n"
    store.put("s3://data/in/a.txt", line * 7)
    job = job_of(source={"SplitType": "Line"}, BatchStrategy="MultiRecord", MaxPayloadInMB=1, MaxConcurrentTransforms=2)
    container, _, variables = transform(store, job)
    assert sorted(len(asked.body) // len(line) for asked in container.invoked) == [1, 3, 3]
    assert store.get("s3://data/out/a.txt.out") == line.upper() * 7
    assert variables == {
        "SAGEMAKER_BATCH": "true", "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
    }  # fmt: skip


def test_the_order_holds_while_several_are_under_way(store):
    lines = [str(number).encode() for number in range(40)]
    store.put("s3://data/in/a.txt", b"\n".join(lines))
    both = threading.Barrier(4)

    def together(asked):
        both.wait(30)
        return 200, asked.body

    job = job_of(
        source={"SplitType": "Line"}, output={"AssembleWith": "Line"}, BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=4, MaxPayloadInMB=1,
    )  # fmt: skip
    transform(store, job, together)
    assert store.get("s3://data/out/a.txt.out").split() == lines


def test_without_a_limit_a_body_goes_in_chunks(store):
    body = b"a long line\n" * 100_000
    store.put("s3://data/in/a.txt", body)
    container, _, variables = transform(store, job_of(MaxPayloadInMB=0))
    (asked,) = container.invoked
    assert asked.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in asked.headers
    assert asked.body == body
    assert variables["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "0"


def test_the_container_is_asked_for_what_the_job_leaves_open(store):
    store.put("s3://data/in/a.txt", b"one\ntwo")
    said = {"MaxConcurrentTransforms": 3, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}
    parameters = 200, json.dumps(said).encode()
    container, _, _ = transform(store, job_of(source={"SplitType": "Line"}), parameters=parameters)
    assert sorted(asked.body for asked in container.invoked) == [b"one", b"two"]
    job = job_of(source={"SplitType": "Line"}, MaxPayloadInMB=2, BatchStrategy="MultiRecord")
    container, _, _ = transform(store, job, parameters=parameters)
    assert [asked.body for asked in container.invoked] == [b"one\ntwo"]


def test_gzip_is_unpacked_before_it_is_sent(store):
    store.put("s3://data/in/a.txt.gz", gzip.compress(b"packed"))
    container, _, _ = transform(store, job_of(source={"CompressionType": "Gzip"}))
    assert [asked.body for asked in container.invoked] == [b"packed"]
    assert store.get("s3://data/out/a.txt.gz.out") == b"PACKED"


def test_recordio_loses_its_padding_when_records_go_alone(store):
    def stored(data, part=0):
        return struct.pack("<II", RECORD_IO, part << 29 | len(data)) + data + bytes(-len(data) % 4)

    whole = stored(b"one") + stored(b"1", part=1) + stored(b"2", part=3)
    store.put("s3://data/in/a.rec", whole)
    source = {"SplitType": "RecordIO"}
    alone, _, _ = transform(store, job_of(source=source, BatchStrategy="SingleRecord"))
    assert [asked.body for asked in alone.invoked] == [b"one", b"1" + struct.pack("<I", RECORD_IO) + b"2"]
    together, _, _ = transform(store, job_of(source=source, BatchStrategy="MultiRecord"))
    assert [asked.body for asked in together.invoked] == [whole]


def test_tfrecords_are_split(store):
    def stored(data):
        return struct.pack("<QI", len(data), 7) + data + struct.pack("<I", 8)

    store.put("s3://data/in/a", stored(b"one") + stored(b"three"))
    container, _, _ = transform(store, job_of(source={"SplitType": "TFRecord"}, BatchStrategy="SingleRecord"))
    assert [asked.body for asked in container.invoked] == [b"one", b"three"]


def test_a_manifest_names_the_objects(store):
    for name in ("a", "b", "c"):
        store.put(f"s3://data/in/sub/{name}", name.encode())
    store.put("s3://data/manifest", json.dumps([{"prefix": "s3://data/in/"}, "sub/a", "sub/c"]).encode())
    where = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://data/manifest"}}
    transform(store, job_of(source={"DataSource": where}))
    assert store.list("s3://data/out") == ["s3://data/out/sub/a.out", "s3://data/out/sub/c.out"]


@pytest.mark.parametrize(("prefix", "name"), [("s3://data/in/a.txt", "a.txt.out"), ("s3://data/in/a", "a.txt.out")])
def test_a_prefix_need_not_be_a_folder(store, prefix, name):
    store.put("s3://data/in/a.txt", b"one")
    where = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": prefix}}
    transform(store, job_of(source={"DataSource": where}))
    assert store.list("s3://data/out") == [f"s3://data/out/{name}"]


def test_an_object_that_fails_fails_the_job_and_leaves_the_others(store):
    store.put("s3://data/in/a.txt", b"good")
    store.put("s3://data/in/b.txt", b"fine\nbad\nfine")
    store.put("s3://data/in/c.txt", b"good too")
    job = job_of(source={"SplitType": "Line"}, BatchStrategy="SingleRecord")
    with pytest.raises(TransformFailed) as failed:
        transform(store, job)
    reason = "ClientError: See job logs for more information. data/in/b.txt: ClientError: 400, Message: "
    assert str(failed.value) == reason + '{"error": "bad"}'
    assert store.list("s3://data/out") == ["s3://data/out/a.txt.out", "s3://data/out/c.txt.out"]


def test_what_the_container_could_not_do_is_tried_again(store):
    store.put("s3://data/in/a.txt", b"one")
    left = [500, 503]

    def answer(asked):
        return (left.pop(), b"") if left else upper(asked)

    container, told, _ = transform(store, job_of(ModelClientConfig={"InvocationsMaxRetries": 2}), answer)
    assert told["TransformJobStatus"] == "Completed"
    assert len(container.invoked) == 3


def test_too_many_failures_are_the_algorithms(store):
    store.put("s3://data/in/a.txt", b"one")
    with pytest.raises(TransformFailed, match=r"AlgorithmError: .*Bad HTTP status received from algorithm: 500"):
        transform(store, job_of(ModelClientConfig={"InvocationsMaxRetries": 0}), lambda asked: (500, b""))


def test_a_container_that_does_not_answer_in_time_fails_the_job(store):
    store.put("s3://data/in/a.txt", b"one")
    over = threading.Event()

    def answer(asked):
        over.wait(30)
        return 404, b""

    job = job_of(ModelClientConfig={"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0})
    with pytest.raises(TransformFailed, match="Unable to get response from algorithm: timed out"):
        transform(store, job, answer)
    over.set()


def test_a_record_over_the_limit_is_said_to_be(store):
    store.put("s3://data/in/a.txt", b"x" * (1 << 20) + b"x")
    with pytest.raises(TransformFailed, match=r"ClientError: .*Too much data for max payload size"):
        transform(store, job_of(MaxPayloadInMB=1))


def test_no_input_is_the_clients_error(store):
    with pytest.raises(TransformFailed, match='ClientError: No S3 objects found under S3 URL "s3://data/in/"'):
        transform(store, job_of())


def test_a_stopped_job_ends_without_the_rest(store):
    store.put("s3://data/in/a.txt", b"\n".join(b"%d" % number for number in range(50)))
    job = job_of(source={"SplitType": "Line"}, BatchStrategy="SingleRecord")

    def answer(asked):
        job["TransformJobStatus"] = "Stopping"
        return upper(asked)

    container, told, _ = transform(store, job, answer)
    assert told["TransformJobStatus"] == "Stopped"
    assert len(container.invoked) == 1
    assert store.list("s3://data/out") == []


def test_csv_is_joined_with_its_answers(store):
    store.put("s3://data/in/a.csv", b'7,"good, really",x\n8,bad,y\n')

    def label(asked):
        rows = asked.body.decode().splitlines()
        return 200, "\n".join(f"LABEL_{len(row)},0.5" for row in rows).encode(), "text/csv; charset=utf-8"

    job = job_of(
        source={"SplitType": "Line", "ContentType": "text/csv"},
        output={"AssembleWith": "Line", "Accept": "text/csv"},
        BatchStrategy="MultiRecord",
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-2]"},
    )
    container, _, _ = transform(store, job, label)
    assert [asked.body for asked in container.invoked] == [b'"good, really",x\nbad,y\n']
    assert store.get("s3://data/out/a.csv.out") == b"7,LABEL_16\n8,LABEL_5\n"


@pytest.mark.parametrize("strategy", ["SingleRecord", "MultiRecord"])
def test_json_lines_are_joined_with_their_answers(store, strategy):
    store.put("s3://data/in/a.jsonl", b'{"id": 1, "text": {"inputs": "a"}}\n{"id": 2, "text": {"inputs": "b"}}')

    def answer(asked):
        records = [json.loads(line) for line in asked.body.splitlines()]
        return 200, "\n".join(json.dumps({"label": record["inputs"]}, indent=1) for record in records).encode()

    job = job_of(
        source={"SplitType": "Line", "ContentType": "application/jsonlines"},
        output={"AssembleWith": "Line", "Accept": "application/jsonlines"},
        BatchStrategy=strategy,
        DataProcessing={"InputFilter": "$.text", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"},
    )
    transform(store, job, answer)
    lines = store.get("s3://data/out/a.jsonl.out").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": 1, "SageMakerOutput": {"label": "a"}},
        {"id": 2, "SageMakerOutput": {"label": "b"}},
    ]


def test_what_is_no_object_is_joined_beside_its_answer(store):
    store.put("s3://data/in/a.json", b'["a", "b"]')
    job = job_of(source={"ContentType": "application/json"}, DataProcessing={"JoinSource": "Input"})
    transform(store, job, lambda asked: (200, b"[1, 2]"))
    assert json.loads(store.get("s3://data/out/a.json.out")) == {
        "SageMakerInput": ["a", "b"],
        "SageMakerOutput": [1, 2],
    }


@pytest.mark.parametrize(
    ("answer", "content_type", "words"),
    [
        (b"1\n2\n3", "text/csv", "2 records of input cannot be joined with 3 of output"),
        (b"1\n2", "application/json", "both are CSV or both are JSON"),
        (b"1\n2", "text/csv", "finds nothing in a record"),
    ],
)
def test_a_join_that_cannot_be_fails_the_job(store, answer, content_type, words):
    store.put("s3://data/in/a.csv", b"a\nb\n")
    job = job_of(
        source={"SplitType": "Line", "ContentType": "text/csv"},
        BatchStrategy="MultiRecord",
        DataProcessing={"JoinSource": "Input", "OutputFilter": "$[9]"},
    )
    with pytest.raises(TransformFailed, match=words):
        transform(store, job, lambda asked: (200, answer, content_type))


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("$", [1], [1]),
        ("$.a.b-c", {"a": {"b-c": 3}}, 3),
        ("$['a']", {"a": 1}, 1),
        ("$.a['b','c']", {"a": {"b": 1, "c": 2, "d": 3}}, {"b": 1, "c": 2}),
        ("$.a.['b']", {"a": {"b": 1}}, 1),
        ("$[0]", [5, 6, 7], 5),
        ("$[0,-1]", [5, 6, 7], [5, 7]),
        ("$[1:]", [5, 6, 7], [6, 7]),
        ("$[:-1]", [5, 6, 7], [5, 6]),
        ("$[0, 2:]", [5, 6, 7, 8], [5, 7, 8]),
        ("$.*", {"a": 1, "b": 2}, [1, 2]),
        ("$[*]", [5, 6], [5, 6]),
    ],
)
def test_filters_select(path, value, found):
    assert json_path(path)(value) == found


@pytest.mark.parametrize("path", ["a", "$..a", "$[?(@.a > 1)]", "$.a[", "$[0:4:2]"])
def test_other_filters_are_refused(path):
    with pytest.raises(BadRecords, match="no JSONPath that is supported"):
        json_path(path)
    with pytest.raises(ValidationException):
        check(job_of(DataProcessing={"InputFilter": path}))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (job_of(MaxConcurrentTransforms=20, MaxPayloadInMB=6), "at most 100 MB"),
        (job_of(source={"SplitType": "Word"}), "SplitType"),
    ],
)
def test_what_cannot_be_is_refused_at_once(job, words):
    with pytest.raises(ValidationException, match=words):
        check(job)
