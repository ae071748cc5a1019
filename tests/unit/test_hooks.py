import asyncio
import math
import pickle
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfserve import hooks
from hfserve.context import Context
from hfserve.errors import HookError, ModelError
from hfserve.hooks import Hooks
from hfserve.messages import Request

EXAMPLES = Path(__file__).parents[1] / "hooks"
CONTEXT = object()
DEFINES_NONE = f"inference.py defines none of {', '.join(hooks.HOOKS)}"


@pytest.fixture(autouse=True)
def own_modules(monkeypatch):
    """Each test imports as a fresh process would, and leaves no bytecode beside the examples."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(hooks, "_code_dirs", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")) or name.startswith("nested"):
            del sys.modules[name]


def find(name: str, program: str = "inference.py", handler: str | None = None) -> Hooks:
    return hooks.find(EXAMPLES / name, program, handler)


def mistakes(name: str, program: str = "inference.py", handler: str | None = None) -> list[str]:
    found = hooks.problems(EXAMPLES / name, program, handler)
    if found:
        with pytest.raises(HookError) as first:
            find(name, program, handler)
        assert str(first.value) == found[0]
    return found


# What is found


def test_hooks_are_bound_to_take_a_context_that_they_never_see():
    found = find("every_hook")
    assert found.any and found.path == EXAMPLES / "every_hook/inference.py"
    assert found.pre_model_fn("dir", CONTEXT) == ["pre", "dir"]
    assert found.model_fn("dir", CONTEXT) == ["model", "dir"]
    assert found.model_warmup_fn("dir", "m", CONTEXT) == ["warmup", "dir", "m"]
    assert found.input_fn(b"body", "text/plain", CONTEXT) == ["input", b"body", "text/plain"]
    assert found.predict_fn("data", "m", CONTEXT) == ["predict", "data", "m"]
    assert found.output_fn("p", "text/plain", CONTEXT) == ["output", "p", "text/plain"]
    assert found.transform_fn is found.predict_batch_fn is found.handle is None


def test_hooks_that_take_the_context_get_it():
    found = find("with_context")
    assert found.model_fn("dir", CONTEXT) == ["dir", CONTEXT]
    assert found.input_fn("b", "t", CONTEXT) == ["b", "t", CONTEXT]
    assert found.predict_fn("d", "m", CONTEXT) == ["d", "m", CONTEXT]
    assert found.output_fn("p", "a", CONTEXT) == ["p", "a", CONTEXT]


def test_parameters_with_defaults_and_stars_are_left_alone():
    found = find("extras")
    assert found.model_fn("dir", CONTEXT) == ["dir", "cpu"]
    assert found.input_fn("b", "t", CONTEXT) == [("b", "t"), {}]
    assert found.predict_batch_fn([1], "m", CONTEXT) == [[1], "m", 1, CONTEXT, {}]
    assert found.output_fn("p", "a", CONTEXT) == ["p", ("a",), CONTEXT]


def test_whatever_can_be_called_can_be_a_hook():
    found = find("callables")
    assert found.model_fn("dir", CONTEXT).model_dir == "dir"
    assert found.model_warmup_fn(2, 3, CONTEXT) == 6
    assert found.input_fn("b", "t", CONTEXT) == ["b", "t", CONTEXT]
    assert found.predict_fn(2, 3, CONTEXT) == 60
    assert found.predict_batch_fn([1], "m", CONTEXT) == [[1], "m", CONTEXT]
    assert found.output_fn("p", "a", CONTEXT) == [["p", "a"]]


def test_an_async_hook_runs_to_its_end():
    found = find("waits")
    assert found.input_fn("b", "t", CONTEXT) == ["b", "t"]
    assert found.predict_fn("d", "m", CONTEXT) == ["d", "m", CONTEXT]
    assert hasattr(found.output_fn("p", "a", CONTEXT), "__anext__")


TALKS = """
async def bidi_fn(frames, model, context):
    async for frame in frames:
        yield [frame, model, context]
"""


def test_bidi_fn_is_bound_like_the_others_and_may_be_a_generator_of_either_kind(tmp_path):
    (tmp_path / "inference.py").write_text(TALKS)

    async def talk(bidi_fn):
        async def frames():
            yield "a"

        return [answer async for answer in bidi_fn(frames(), "m", CONTEXT)]

    found = find(tmp_path)
    assert found.any
    assert asyncio.run(talk(found.bidi_fn)) == [["a", "m", CONTEXT]]
    (tmp_path / "inference.py").write_text("def bidi_fn(frames, model):\n    yield from frames\n")
    assert list(find(tmp_path).bidi_fn(iter("ab"), "m", CONTEXT)) == ["a", "b"]


def test_a_bidi_fn_that_never_yields_is_a_mistake(tmp_path):
    (tmp_path / "inference.py").write_text("async def bidi_fn(frames, model):\n    return 'once'\n")
    (told,) = hooks.problems(tmp_path, "inference.py", None)
    assert told == f"{tmp_path.name}/inference.py:1: bidi_fn should yield its answers, one after the other"


def test_transform_fn_can_stand_alone():
    assert find("transform").transform_fn("m", "b", "t", "a", CONTEXT) == ["m", "b", "t", "a"]


def test_the_module_is_known_by_its_own_name():
    model = find("odd_names", "my-hooks.v2.py").model_fn("x", CONTEXT)
    assert pickle.loads(pickle.dumps(model)).name == "x"
    assert "my-hooks_v2" in sys.modules and sys.path[0] == str(EXAMPLES / "odd_names")


def test_a_program_in_a_folder_can_import_its_neighbours():
    model = find("odd_names", "nested/inference.py").model_fn("x", CONTEXT)
    assert pickle.loads(pickle.dumps(model)).name == "hello"
    assert type(model).__module__ == "nested.inference"


def test_another_models_hooks_take_the_place_of_the_first():
    first, second = find("every_hook"), find("with_context")
    assert first.model_fn("dir", CONTEXT) == ["model", "dir"]
    assert second.model_fn("dir", CONTEXT) == ["dir", CONTEXT]
    assert find("every_hook").any


@pytest.mark.parametrize("code_dir", [None, EXAMPLES / "not there", EXAMPLES / "no_hooks"])
def test_no_file_means_no_hooks(code_dir):
    found = hooks.find(code_dir, "inference.py", None)
    assert found == Hooks(path=None) and not found.any
    assert hooks.problems(code_dir, "inference.py", None) == []


def test_a_directory_given_by_a_relative_path(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    assert hooks.find(Path("transform"), "inference.py", None).path == EXAMPLES / "transform/inference.py"


# A custom service


@pytest.mark.parametrize(
    "handler", ["service", "service.py", "service:handle", "service.py:handle", "/home/x/service.py"]
)
def test_a_handler_is_a_module_and_a_function(handler):
    found = find("service", handler=handler)
    assert found.handle([{"body": b""}], CONTEXT) == [[{"body": b""}], CONTEXT]
    assert found.path == EXAMPLES / "service/service.py" and found.any and found.model_fn is None


def test_a_handler_can_name_another_function():
    assert find("service", handler="service:other").handle([], CONTEXT) == "other"


def test_a_service_may_be_a_class_as_multi_model_server_has_it():
    found = find("service_class", handler="service")
    assert found.handle(None, CONTEXT) is None
    assert found.handle(["data"], CONTEXT) == [True, ["data"]]


def test_a_handler_can_be_an_installed_module():
    assert hooks.find(None, "inference.py", "operator:add").handle([1], [2]) == [1, 2]


@pytest.mark.parametrize(
    ("handler", "mistake"),
    [
        ("nowhere", "SAGEMAKER_HANDLER=nowhere: no module nowhere is in code/ or installed"),
        (
            "service:handler",
            "SAGEMAKER_HANDLER=service:handler: service/service.py has no handler; did you mean handle?",
        ),
        ("service:lone", "service/service.py:9: lone() should take (data, context)"),
        (":handle", "SAGEMAKER_HANDLER=:handle: ValueError on import: Empty module name"),
    ],
)
def test_a_handler_that_is_not_there_is_a_mistake(handler, mistake):
    assert mistakes("service", handler=handler) == [mistake]


# Mistakes, each told in a sentence


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "wrong_arguments",
            [
                "wrong_arguments/inference.py:17: pre_model_fn() should take (model_dir) and may add context",
                "wrong_arguments/inference.py:1: model_fn(model_dir, device, extra) should take "
                "(model_dir) and may add context",
                "wrong_arguments/inference.py:5: input_fn(body) should take (body, content_type) and may add context",
                "wrong_arguments/inference.py:9: predict_fn(data, model, threshold) should take "
                "(data, model) and may add context",
                "wrong_arguments/inference.py:13: output_fn(prediction, accept, device, context) should take "
                "(prediction, accept) and may add context",
            ],
        ),
        (
            "not_a_function",
            [
                "not_a_function/inference.py:1: model_fn should be a function, not NoneType",
                "not_a_function/inference.py:2: predict_fn should be a function, not int",
            ],
        ),
        (
            "transform_and_others",
            [
                "transform_and_others/inference.py:5: transform_fn does the work of "
                "input_fn (transform_and_others/inference.py:1), output_fn (transform_and_others/inference.py:9); "
                "keep it or them"
            ],
        ),
        ("misspelt", ["misspelt/inference.py:17: ouput_fn is no hook; did you mean output_fn?"]),
        (
            "nothing",
            [
                f"nothing/{DEFINES_NONE}; rename predict (line 5) to predict_fn, transform (line 9) to transform_fn"
            ],
        ),
        (
            "handle_only",
            [
                f"handle_only/{DEFINES_NONE}; set SAGEMAKER_HANDLER=inference to serve with its handle(data, context)"
            ],
        ),
        (
            "missing_package",
            [
                "missing_package/helper.py:1: the package no_such_package is not installed; "
                "name no_such_package in missing_package/requirements.txt, "
                "or add no_such_package.py when it is your own"
            ],
        ),
        ("exits", ['exits/inference.py:3: it ends the process on import; put that under `if __name__ == "__main__":`']),
        (
            "relative_import",
            [
                "relative_import/inference.py:1: relative_import/ is not a package; "
                "import its files by their names, without a leading dot"
            ],
        ),
        (
            "other_file",
            [
                "other_file/ holds no inference.py, yet other_file/infer.py defines predict_fn; "
                "rename it or set SAGEMAKER_PROGRAM=infer.py"
            ],
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_remedy(name, told):
    assert mistakes(name) == told


def test_an_error_on_import_is_told_at_the_users_innermost_line():
    (told,) = mistakes("raises")
    assert told.startswith("raises/reading.py:2: JSONDecodeError on import: Expecting property name")


def test_a_name_that_cannot_be_imported_is_told():
    (told,) = mistakes("missing_name")
    assert told.startswith("missing_name/inference.py:1: ImportError on import: cannot import name 'no_such_name'")


def test_a_failed_import_leaves_no_module_behind():
    mistakes("raises")
    assert "inference" not in sys.modules


@pytest.mark.parametrize("file", ["inference.py", "helper.py"])
def test_a_syntax_error_is_told_with_its_line(tmp_path, file):
    code = tmp_path / "code"
    code.mkdir()
    (code / "inference.py").write_text("import helper\n")
    (code / file).write_text("x = 1\ndef predict_fn(data, model:\n    return data\n")
    (told,) = hooks.problems(code, "inference.py", None)
    assert told.startswith(f"code/{file}:2: ") and told.endswith(": def predict_fn(data, model:")
    sys.modules.pop("helper", None)


@pytest.mark.parametrize("content", [b"\0", b"x = '\xff'"])
def test_a_file_that_is_no_source_is_told(tmp_path, content):
    (tmp_path / "inference.py").write_bytes(content)
    (told,) = hooks.problems(tmp_path, "inference.py", None)
    assert told.startswith(f"{tmp_path.name}/inference.py:")


def test_a_package_is_told_by_the_name_it_is_installed_under(tmp_path):
    (tmp_path / "inference.py").write_text("raise ModuleNotFoundError('no', name='sklearn.svm')\n")
    (told,) = hooks.problems(tmp_path, "inference.py", None)
    assert told.endswith(
        f":1: the package sklearn is not installed; name scikit-learn in {tmp_path.name}/requirements.txt, "
        "or add sklearn.py when it is your own"
    )


@pytest.mark.parametrize(
    ("name", "program", "told"),
    [
        ("no_hooks", "serve.py", "names a file that no_hooks/ does not hold; it holds train.py"),
        ("no_hooks", "inference", "should name a .py file inside no_hooks/"),
        ("no_hooks", "../every_hook/inference.py", "should name a .py file inside no_hooks/"),
        ("no_hooks", "/tmp/inference.py", "should name a .py file inside no_hooks/"),
    ],
)
def test_a_program_that_is_not_there_is_a_mistake(name, program, told):
    assert mistakes(name, program) == [f"SAGEMAKER_PROGRAM={program} {told}"]


def test_a_program_may_not_take_the_place_of_another_module():
    import json

    assert mistakes("taken_name", "json.py") == [
        "taken_name/json.py has the name of another module, json; rename it"
    ]  # fmt: skip
    assert sys.modules["json"] is json


def test_where_an_error_passed_through_the_users_code():
    found = find("callables")
    with pytest.raises(TypeError) as caught:
        found.predict_fn([1], {}, CONTEXT)
    assert hooks.where(caught.value) == " (callables/inference.py:24)"
    assert hooks.where(ValueError()) == ""


names = st.sampled_from(["data", "model", "context", "x", "y"])


@given(st.lists(names, max_size=4, unique=True), st.integers(0, 4), st.sampled_from(["", "*", "*rest"]), st.booleans())
def test_a_function_that_is_accepted_can_be_called(given_names, split, star, stars):
    """Whatever the signature, a bound hook never fails for its arguments."""
    positional, keyed = given_names[:split], given_names[split:]
    parts = positional + [star] * bool(star == "*rest" or (star and keyed)) + keyed + ["**kwargs"] * stars
    namespace: dict = {}
    exec(f"def predict_fn({', '.join(parts)}): return {{**locals()}}", namespace)
    source = hooks._Source(sys.modules[__name__], Path("inference.py"), "code/inference.py", None, {})
    bound, mistake = hooks._bound(source, "predict_fn", namespace["predict_fn"], ("data", "model"))
    assert (bound is None) is (mistake is not None)
    if bound:
        seen = bound("D", "M", CONTEXT)
        flat = [*seen.values(), *seen.get("rest", ())]
        assert flat.count("D") == flat.count("M") == 1 and flat.count(CONTEXT) <= 1
        assert seen.get("context", CONTEXT) in (CONTEXT, "D", "M")


# Context


def context(**headers: str) -> Context:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = Request(b"{}", named, "id-1", time.monotonic() + 60)
    return Context(request, model_dir=Path("/models/a"), gpu_id=None)


def test_a_context_tells_of_the_request():
    told = context(content_type="text/csv", x_amzn_sagemaker_custom_attributes="a=1")
    assert told.get_request_header(0, "Content-Type") == "text/csv"
    assert told.get_request_header(0, "X-Missing") is None
    assert told.get_all_request_header(0)["X-Amzn-SageMaker-Custom-Attributes"] == "a=1"
    assert told.get_all_request_header().get("CONTENT-TYPE") == "text/csv"
    assert "Content-Type" in told.headers and all(name.islower() for name in told.headers)
    assert told.request_processor[0].get_request_property("content-type") == "text/csv"
    assert told.get_request_id() == told.get_request_id(0) == told.request_id == "id-1"
    assert told.request.body == b"{}" and told.deadline == told.request.deadline
    with pytest.raises(KeyError):
        told.headers["X-Missing"]
    with pytest.raises(IndexError):
        told.get_request_header(1, "Content-Type")


def test_a_context_tells_of_the_server():
    told = Context(None, model_dir=Path("/models/a"), gpu_id=1)
    expected = {"model_dir": "/models/a", "gpu_id": 1, "batch_size": 1, "server_name": "hfserve"}
    assert expected.items() <= told.system_properties.items() and told.system_properties["server_version"]
    assert (told.manifest, told.model_name, told.model_dir) == ({}, "model", Path("/models/a"))


def test_while_the_model_loads_there_is_no_request():
    told = Context(None, model_dir=Path("/models/a"))
    assert (told.headers, told.request_id, told.deadline) == ({}, "", math.inf)
    with pytest.raises(ModelError, match="no request"):
        _ = told.request


def test_a_hook_sets_status_and_headers():
    told = context()
    assert told.get_response_status(0) == (200, "") and told.get_response_headers(0) == {}
    told.set_response_status(201, "Created", 0)
    told.set_response_content_type(0, "text/csv")
    told.set_response_header(0, "X-Model", 7)
    told.set_response_header(0, "x-model", "eight")
    assert told.get_response_status() == (201, "Created")
    assert told.get_response_content_type(0) == "text/csv"
    assert told.get_response_headers(0) == {"content-type": "text/csv", "x-model": "eight"}
    told.set_all_response_status(code=202)
    assert told.get_response_status(idx=0)[0] == 202


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("X-A", "a\r\nSet-Cookie: b", "visible ASCII"),
        ("X-A", "a\tb", "visible ASCII"),
        ("X-A", "é", "visible ASCII"),
        ("X A", "a", "name of a header"),
        ("", "a", "name of a header"),
        ("X-A:", "a", "name of a header"),
        ("Content-Length", "3", "server's to set"),
        ("X-Amzn-SageMaker-Custom-Attributes", "a" * 1025, "1024 characters"),
    ],
)
def test_a_header_that_http_would_not_carry_is_refused(name, value, rule):
    told = context()
    with pytest.raises(ModelError, match=rule):
        told.set_response_header(0, name, value)
    assert told.get_response_headers(0) == {}


@pytest.mark.parametrize("code", [0, 100, 600, "200", None])
def test_a_status_that_is_none_is_refused(code):
    with pytest.raises(ModelError, match="200 to 599"):
        context().set_response_status(code)


def test_metrics_of_multi_model_server_can_be_called():
    metrics = context().metrics
    metrics.add_counter("n", 1, idx=0, dimensions=None)
    metrics.add_time("t", 2.5, 0, unit="ms")
    metrics.add_metric("m", 1, unit="MB", idx=0)
    metrics.add_error("e", "text")


def test_a_context_has_all_that_multi_model_servers_has():
    from mms.context import Context as Theirs
    from mms.context import RequestProcessor

    ours = context()
    theirs = Theirs("model", "/models/a", {}, 1, None, "1.1.11")
    theirs.request_processor = [RequestProcessor({})]
    for one, other in ((ours, theirs), (ours.request_processor[0], theirs.request_processor[0])):
        assert {name for name in dir(other) if not name.startswith("_")} - {"request_ids"} <= set(dir(one))
