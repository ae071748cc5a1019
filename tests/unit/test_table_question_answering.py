"""table-question-answering answers as transformers' pipeline: TAPAS live, TAPEX as the pipeline of 4.57.6 did."""

import copy
import json
import os
import random
import time
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from pydantic import TypeAdapter

import tiny_pairs
from hfserve.errors import InvalidInput, LoadError
from hfserve.settings import Options
from hfserve.tasks.detect import detect
from hfserve.tasks.schemas.pairs import TABLE_QUESTION_ANSWERING
from hfserve.tasks.table import TASKS
from hfserve.tasks.table_question_answering import load

torch.set_num_threads(1)

TASK = TASKS["table-question-answering"]
TAPAS = ["table-question-answering", "table-question-answering-cells"]
TAPEX = "table-question-answering-tapex"
GOLDEN = json.loads((Path(__file__).parent.parent / "golden/table_question_answering.json").read_text(encoding="utf-8"))
SALES = {"City": ["Paris", "Rome", "Oslo"], "Sales": ["12", "7", "1,000"], "Date": ["May 2010", "June 3, 2011", "2012"]}
MANY = {"City": ["Paris", "Rome in Italy"] * 30, "Sales": [str(i % 7) for i in range(60)]}
LONG_CELLS = {"Name": ["the food in paris was good " * 20, "a"], "n/a": ["", "?"]}
ASKED = {"query": "How much over 5 did Rome sell in 2010?", "table": SALES}
WORDS = [
    "food", "good", "bad", "7", "12", "3.5", "1,000", "2010", "May", "1999-01-02", "first", "ten", "n/a", "?",
    "London", "[SEP]", "naïve", "日本", "a-b", "10%", "unlovely",
]  # fmt: skip


@pytest.fixture(scope="module", params=TAPAS)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny_pairs.build(request.param, tmp_path_factory.mktemp(request.param))
    pipe = transformers.pipeline("table-question-answering", model=str(folder), device="cpu")
    return load(TASK, folder, Options()), pipe


@pytest.fixture(scope="module")
def tapas(tmp_path_factory):
    return load(TASK, tiny_pairs.build(TAPAS[0], tmp_path_factory.mktemp("tapas")), Options())


@pytest.fixture(scope="module")
def tapex(tmp_path_factory):
    return load(TASK, tiny_pairs.build(TAPEX, tmp_path_factory.mktemp("tapex")), Options())


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    answer = runner.result(data, runner.run(runner.items(data)))
    if isinstance(inputs, dict):
        TypeAdapter(TABLE_QUESTION_ANSWERING.answer).validate_python(answer)
        TypeAdapter(TABLE_QUESTION_ANSWERING.inputs).validate_python(inputs)
    else:
        TypeAdapter(TABLE_QUESTION_ANSWERING.answers).validate_python(answer)
    return answer


def _expected(pipe, inputs, **parameters):
    """The pipeline's answer in what JSON knows; it changes what it is given."""
    return json.loads(json.dumps(pipe(copy.deepcopy(inputs), **parameters)))


def _some_table(chance):
    """A table of a few columns, of numbers or of words."""
    rows = chance.randint(1, 25)
    columns = {}
    for number in range(chance.randint(1, 4)):
        lengths = [1] if chance.random() < 0.5 else [0, 1, 1, 2, 5, 30]
        choices = ["7", "12", "3.5", "0", "May 2010", "2011"] if lengths == [1] else WORDS
        columns[f"{chance.choice(WORDS)} {number}"] = [
            " ".join(chance.choices(choices, k=chance.choice(lengths))) for _ in range(rows)
        ]
    return {"query": " ".join(chance.choices(WORDS, k=chance.randint(1, 6))), "table": columns}


QUESTIONS = ["How much over 5 in 2010?", "Which city?", "How many are less than 1,000?"]
REQUESTS = [
    (ASKED, {}),
    ({**ASKED, "query": QUESTIONS}, {}),
    ({**ASKED, "query": QUESTIONS}, {"sequential": True}),
    ({**ASKED, "query": QUESTIONS[:1]}, {"sequential": True}),
    ({**ASKED, "query": "Where?"}, {"sequential": True}),
    ([ASKED], {}),
    ([ASKED, {**ASKED, "query": QUESTIONS[:2]}], {}),
    ([ASKED, {**ASKED, "query": QUESTIONS[:2]}], {"sequential": True}),
    ({"query": "How many?", "table": MANY}, {}),
    ({"query": sorted(QUESTIONS, key=len), "table": MANY}, {"sequential": True}),
    ({"query": "Who?", "table": LONG_CELLS}, {"truncation": True}),
    (ASKED, {"truncation": "drop_rows_to_fit", "padding": "max_length"}),
    (ASKED, {"truncation": False, "padding": True}),
    (ASKED, {"truncation": "do_not_truncate"}),
]


# TAPAS


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_every_request_is_answered_as_by_the_pipeline(both, number):
    ours, pipe = both
    inputs, parameters = REQUESTS[number]
    assert _ask(ours, inputs, **parameters) == _expected(pipe, inputs, **parameters)


def test_the_tiny_models_tell_answers_apart(both):
    ours, _ = both
    answers = [_ask(ours, _some_table(random.Random(seed))) for seed in range(20)]
    assert len({answer["answer"] for answer in answers}) > 10
    assert sum(bool(answer["cells"]) for answer in answers) > 5
    assert {"aggregator" in answer for answer in answers} == {bool(ours._functions)}


def test_tables_of_all_kinds_are_read_as_by_the_tokenizer(both):
    import pandas

    ours, pipe = both
    chance = random.Random(7)
    cuts = []
    for _ in range(40):
        asked = _some_table(chance)
        frame = pandas.DataFrame(asked["table"])
        theirs = pipe.tokenizer(frame, asked["query"], truncation="drop_rows_to_fit")
        (item,) = ours.items({"inputs": asked})
        assert item.data.encoded[0] == {**theirs, "token_type_ids": [list(each) for each in theirs["token_type_ids"]]}
        assert item.cost == len(theirs["input_ids"])
        whole = pipe.tokenizer(frame, asked["query"])
        assert bool(item.cut) == (len(whole["input_ids"]) > 96)
        cuts.append(item.cut)
    assert set(cuts) == {"", "inputs.table"}


def test_cells_cut_to_a_length_of_the_tokenizer(both, monkeypatch):
    import pandas

    ours, pipe = both
    for tokenizer in (ours._encode._tokenizer, pipe.tokenizer):
        monkeypatch.setattr(tokenizer, "cell_trim_length", 2)
    for seed in range(20):
        asked = _some_table(random.Random(seed))
        theirs = pipe.tokenizer(pandas.DataFrame(asked["table"]), asked["query"], truncation="drop_rows_to_fit")
        assert ours.items({"inputs": asked})[0].data.encoded[0]["input_ids"] == theirs["input_ids"]


def test_requests_share_passes_and_keep_their_answers(both, monkeypatch):
    from hfserve.runtimes import torch as runtime

    ours, _ = both
    asked = [*REQUESTS, *((_some_table(random.Random(seed)), {}) for seed in range(10))]
    asked = [{"inputs": inputs, "parameters": parameters} for inputs, parameters in asked]
    alone = [ours.result(data, [ours.run([item])[0] for item in ours.items(data)]) for data in asked]
    seen = []
    forward = runtime.forward
    monkeypatch.setattr(
        runtime,
        "forward",
        lambda model, encoded, *a, **k: seen.append(len(encoded)) or forward(model, encoded, *a, **k),
    )
    apart = [ours.items(data) for data in asked]
    assert len({item.batch_key for items in apart for item in items}) == 1
    outcomes = iter(ours.run([item for items in apart for item in items]))
    together = [ours.result(data, [next(outcomes) for _ in items]) for data, items in zip(asked, apart, strict=True)]
    assert together == alone
    assert len(seen) == 3 and seen[0] == sum(map(len, apart)) and seen[1:] == [3, 2]


def test_a_question_may_be_told_the_answer_before(both):
    ours, _ = both
    (item,) = ours.items({"inputs": {**ASKED, "query": QUESTIONS}, "parameters": {"sequential": True}})
    assert len(item.data.encoded) == 3
    assert len(ours.items({"inputs": {**ASKED, "query": QUESTIONS}})) == 3
    # The pipeline fails where the question before left less of the table
    answers = _ask(ours, {"query": sorted(QUESTIONS, key=len, reverse=True), "table": MANY}, sequential=True)
    assert len(answers) == 3


def test_a_table_comes_by_columns_or_by_rows(tapas):
    answer = _ask(tapas, ASKED)
    rows = [dict(zip(SALES, row, strict=True)) for row in zip(*SALES.values(), strict=True)]
    assert _ask(tapas, {**ASKED, "table": rows}) == answer
    assert tapas.items(ASKED) == tapas.items({"inputs": ASKED})
    numbers = {"a": [1, 2.5], "b": [None, True]}
    table = tapas.items({"inputs": {"query": "?", "table": numbers}})[0].data.table
    assert table.rows == [["1", ""], ["2.5", "True"]]
    uneven = [{"a": "1"}, {"b": "2"}]
    table = tapas.items({"inputs": {"query": "?", "table": uneven}})[0].data.table
    assert (table.names, table.rows) == (["a", "b"], [["1", ""], ["", "2"]])
    assert _ask(tapas, []) == []


def test_a_table_that_is_too_long_is_cut_unless_that_is_refused(tapas):
    long = {"query": "How many?", "table": MANY}
    data = {"inputs": [ASKED, long]}
    assert [item.cut for item in tapas.items(data)] == ["", "inputs[1].table"]
    for chosen in (False, "do_not_truncate"):
        with pytest.raises(InvalidInput, match=r"inputs\[1\].table is longer than the 96 tokens that the model takes"):
            tapas.items({**data, "parameters": {"truncation": chosen}})


def test_a_table_of_any_size_is_read_in_a_moment(tapas):
    table = {f"c{i}": [f"{j * i} apples and 12 pears in May 2010" for j in range(20_000)] for i in range(4)}
    started = time.monotonic()
    (item,) = tapas.items({"inputs": {"query": "More than 7, 8 or 9?", "table": table}})
    assert time.monotonic() - started < 20 and item.cut and item.cost <= 96
    (item,) = tapas.items({"inputs": {"query": "?", "table": {"a": ["1 " * 500_000, "2"]}}})
    assert time.monotonic() - started < 25 and item.cut and item.cost <= 96


REFUSED = [
    ("How many?", r"inputs is a string; table-question-answering takes {\"query\""),
    ({"query": "?"}, r"inputs.table is missing"),
    ({"table": SALES}, r"inputs.query is missing"),
    ({**ASKED, "top_k": 1}, r"inputs.top_k: not known; there are query, table"),
    ({**ASKED, "query": ""}, r"inputs.query is empty"),
    ({**ASKED, "query": []}, r"inputs.query has to be a list of strings, at least one"),
    ({**ASKED, "query": ["a", 7]}, r"inputs.query\[1\] is a number; it has to be a string"),
    ({**ASKED, "query": None}, r"inputs.query is null"),
    ({**ASKED, "table": {}}, r"inputs.table is empty"),
    ({**ASKED, "table": {"a": []}}, r"inputs.table is empty"),
    ({**ASKED, "table": []}, r"inputs.table is empty"),
    ({**ASKED, "table": [{}]}, r"inputs.table is empty"),
    ({**ASKED, "table": "a,b"}, r"inputs.table is a string; it has to be an object of columns, or a list of rows"),
    ({**ASKED, "table": [["a"]]}, r"inputs.table\[0\] is a list; a row is an object"),
    ({**ASKED, "table": {"a": ["1"], "b": []}}, r"inputs.table has columns of unequal length: a 1, b 0"),
    ({**ASKED, "table": {"a": ["1", ["2"]]}}, r"inputs.table\[1\] has a list for a cell"),
    ([ASKED, {**ASKED, "table": {}}], r"inputs\[1\].table is empty"),
    ({**ASKED, "query": "long question " * 60}, r"inputs.query and the names of the columns leave no room for a row"),
    ({**ASKED, "query": "q" * 2000}, r"inputs.query and the names of the columns leave no room for a row"),
]


@pytest.mark.parametrize(("inputs", "words"), REFUSED)
def test_wrong_inputs_are_named(tapas, tapex, inputs, words):
    for runner in (tapas, tapex):
        with pytest.raises(InvalidInput, match=words):
            runner.items({"inputs": inputs})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"top_k": 1}, r"parameters.top_k: not known; there are sequential, padding, truncation"),
        ({"sequential": "often"}, r"parameters.sequential: "),
        ({"truncation": "longest_first"}, r"parameters.truncation: "),
    ],
)
def test_wrong_parameters_are_named(tapas, tapex, parameters, words):
    for runner in (tapas, tapex):
        with pytest.raises(InvalidInput, match=words):
            runner.items({"inputs": ASKED, "parameters": parameters})


def test_too_many_columns_are_refused(tapas):
    with pytest.raises(InvalidInput, match=r"inputs.table has 300 columns, which are too many"):
        tapas.items({"inputs": {"query": "?", "table": {str(i): ["1"] for i in range(300)}}})


def test_a_tokenizer_that_reads_no_tables_is_told_at_load(tmp_path):
    tiny_pairs.build(TAPAS[0], tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(LoadError, match="does not read tables; save the model with its TapasTokenizer"):
        load(TASK, tmp_path, Options())


# TAPEX


@pytest.mark.parametrize("number", range(len(GOLDEN["requests"])))
def test_written_answers_are_those_of_the_pipeline(tapex, number):
    assert _ask(tapex, GOLDEN["requests"][number]) == GOLDEN["answers"][TAPEX][number]


def test_written_answers_keep_when_requests_share_a_pass(tapex):
    data = {"inputs": GOLDEN["requests"]}
    items = tapex.items(data)
    assert len({item.batch_key for item in items}) == 1
    assert tapex.result(data, tapex.run(items)) == GOLDEN["answers"][TAPEX]


def test_a_written_answer_reads_the_rows_that_fit(tapex):
    table = {"a": [str(i) for i in range(40)]}
    (item,) = tapex.items({"inputs": {"query": "?", "table": table}})
    kept = 1 + max(n for n in range(41) if len(_written(table, n)) <= 94)
    assert item.cut == "inputs.table" and item.cost <= 96
    assert item.cost == len(_written(table, kept - 1)) + 2
    with pytest.raises(InvalidInput, match=r"inputs.table is longer than the 96 tokens"):
        tapex.items({"inputs": {"query": "?", "table": table}, "parameters": {"truncation": False}})


def _written(table, rows):
    """A table of one column as TAPEX reads it; in the tiny model every character is a token."""
    return " ".join(["? col : a", *(f"row {i + 1} : {cell}" for i, cell in enumerate(table["a"][:rows]))])


# Both


@pytest.mark.parametrize("name", [*TAPAS, TAPEX])
def test_the_task_is_found(name, tmp_path):
    assert detect(tiny_pairs.build(name, tmp_path)) == "table-question-answering"
