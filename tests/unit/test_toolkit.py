"""Code written for SageMaker's Hugging Face inference toolkit finds its names, and answers as it was used to."""

import base64
import importlib
import json
import math
import pickle
import sys
import time
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfserve import hooks
from hfserve.artifacts import Artifact
from hfserve.context import Context
from hfserve.errors import (
    BadRequest,
    InvalidInput,
    LoadError,
    NotAcceptable,
    ServeError,
    SettingsError,
    UnsupportedMediaType,
)
from hfserve.messages import Request
from hfserve.model import HookModel, load
from hfserve.settings import Settings
from sagemaker_huggingface_inference_toolkit import content_types, decoder_encoder, handler_service, transformers_utils
from sagemaker_huggingface_inference_toolkit.handler_service import HuggingFaceHandlerService
from sagemaker_huggingface_inference_toolkit.transformers_utils import (
    ARCHITECTURES_2_TASK,
    get_pipeline,
    infer_task_from_hub,
    infer_task_from_model_architecture,
)

GOLDEN = Path(__file__).parents[1] / "golden"
ASKED = {"question": "Where does Ada live?", "context": "My name is Ada and I live in London."}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The toolkit leaves the task in the environment; no test may see another's."""
    for name in ("HF_TASK", "HFSERVE_TASK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


# Names


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("content_types", "JSON CSV OCTET_STREAM ANY NPY UTF8_TYPES JPEG PNG TIFF BMP GIF WEBP X_IMAGE VISION_TYPES "
         "FLAC MP3 WAV OGG X_AUDIO AUDIO_TYPES"),
        ("decoder_encoder", "decode encode decode_json decode_csv decode_image decode_audio encode_json encode_csv "
         "encode_image"),
        ("handler_service", "HuggingFaceHandlerService"),
        ("transformers_utils", "get_pipeline infer_task_from_model_architecture infer_task_from_hub "
         "ARCHITECTURES_2_TASK _is_gpu_available"),
        ("serving", "main"),
    ],
)  # fmt: skip
def test_every_name_of_the_toolkit_that_user_code_imports_is_there(module, names):
    found = importlib.import_module(f"sagemaker_huggingface_inference_toolkit.{module}")
    assert [name for name in names.split() if not hasattr(found, name)] == []


# Bodies in


def npy(array, **options):
    written = BytesIO()
    np.save(written, array, **options)
    return written.getvalue()


def png(mode="RGBA"):
    written = BytesIO()
    Image.new(mode, (4, 4)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "content_type", "value"),
    [
        ('{"inputs": "é"}', "application/json", {"inputs": "é"}),
        (b'{"inputs": "\xc3\xa9"}', "application/json", {"inputs": "é"}),
        (bytearray(b'["a"]'), "application/json; charset=utf-8", ["a"]),
        (b'"\xe9"', "application/json; charset=latin-1", "é"),
        ('"é"', "application/json; charset=latin-1", "é"),
        ('{"a": 1}\n{"a": 2}\n', "application/jsonlines", [{"a": 1}, {"a": 2}]),
        ("inputs\na\nb\n", "text/csv", {"inputs": ["a", "b"]}),
        ("inputs,id\na,1\nb,2\n", "text/csv", {"inputs": ["a", "b"]}),
        ("question,context\na,b\n", "text/csv", {"inputs": [{"question": "a", "context": "b"}]}),
        (b"fLaC\x00", "audio/x-flac", {"inputs": b"fLaC\x00"}),
        (b'{"inputs": "a"}', None, {"inputs": "a"}),
    ],
)
def test_a_body_is_read_as_the_toolkit_shapes_it(content, content_type, value):
    assert decoder_encoder.decode(content, content_type) == value


def test_json_is_what_a_body_is_unless_it_says_otherwise():
    assert decoder_encoder.decode('{"inputs": 1}') == decoder_encoder.decode_json('{"inputs": 1}') == {"inputs": 1}


@pytest.mark.parametrize("content_type", [content_types.PNG, content_types.X_IMAGE])
def test_an_image_comes_in_rgb(content_type):
    image = decoder_encoder.decode(png(), content_type)["inputs"]
    assert (image.mode, image.size) == ("RGB", (4, 4))


def test_an_array_is_read_and_a_posted_pickle_never_runs():
    assert decoder_encoder.decode(npy([[1, 2]]), content_types.NPY).tolist() == [[1, 2]]
    with pytest.raises(BadRequest):
        decoder_encoder.decode(npy(np.array([{"a": 1}]), allow_pickle=True), content_types.NPY)
    with pytest.raises(BadRequest):
        decoder_encoder.decode(pickle.dumps("x"), content_types.NPY)


@pytest.mark.parametrize(
    ("content", "content_type", "error"),
    [
        ("{", "application/json", BadRequest),
        ("", "application/json", BadRequest),
        ("a\nb\n", "text/csv", BadRequest),
        ("question,context\na\n", "text/csv", BadRequest),
        (b"no image", "image/png", BadRequest),
        (b"x", "application/x-thing", UnsupportedMediaType),
    ],
)
def test_a_body_that_cannot_be_read_has_its_own_status(content, content_type, error):
    with pytest.raises(error):
        decoder_encoder.decode(content, content_type)


# Answers out


@pytest.mark.parametrize(
    ("answer", "accept", "body"),
    [
        ([{"label": "é", "score": 0.5}], "application/json", '[{"label":"é","score":0.5}]'),
        ([{"label": "a"}], "application/json, text/plain", '[{"label":"a"}]'),
        ({"a": 1}, "text/html;q=0.1, application/json;q=0.9", '{"a":1}'),
        ({"a": 1}, "*/*", '{"a":1}'),
        ({"a": 1}, None, '{"a":1}'),
        ({"a": np.float32(0.5), "b": np.array([1, 2]), "c": math.nan}, content_types.JSON,
         '{"a":0.5,"b":[1,2],"c":null}'),
        ({"at": datetime(2026, 1, 2, 3)}, content_types.JSON, '{"at":"2026-01-02 03:00:00"}'),
        ([{"label": "a", "score": 0.5}], content_types.CSV, "label,score\r\na,0.5\r\n"),
    ],
)  # fmt: skip
def test_an_answer_is_text_in_json_and_csv(answer, accept, body):
    assert decoder_encoder.encode(answer, accept) == body


def test_an_array_goes_out_as_numbers_and_never_as_a_pickle():
    assert np.load(BytesIO(decoder_encoder.encode([[1.5]], content_types.NPY)), allow_pickle=False).tolist() == [[1.5]]
    with pytest.raises(NotAcceptable):
        decoder_encoder.encode([{"label": "a"}], content_types.NPY)


@pytest.mark.parametrize("accept", content_types.VISION_TYPES)
def test_an_image_goes_out_in_its_format(accept):
    image = Image.open(BytesIO(decoder_encoder.encode(Image.new("RGBA", (4, 4)), accept)))
    wanted = {"x-image": "PNG"}.get(accept.partition("/")[2], accept.partition("/")[2].upper())
    assert (image.format, image.size) == (wanted, (4, 4))


def test_an_image_in_json_is_png_in_base64():
    answer = json.loads(decoder_encoder.encode([{"mask": Image.new("L", (4, 4))}]))
    assert Image.open(BytesIO(base64.b64decode(answer[0]["mask"]))).format == "PNG"


@pytest.mark.parametrize("accept", ["application/x-thing", "image/png"])
def test_an_answer_without_the_form_asked_for_is_not_acceptable(accept):
    with pytest.raises(NotAcceptable):
        decoder_encoder.encode({"a": 1}, accept)


def test_code_that_only_reads_and_writes_loads_neither_torch_nor_transformers():
    import subprocess

    code = "from sagemaker_huggingface_inference_toolkit import content_types, decoder_encoder as d, handler_service\n"
    code += "d.encode(d.decode('{}')); import sys; sys.exit(bool({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# The task of a model


def configured(folder, name="config.json", **config):
    (folder / name).write_text(json.dumps(config))
    return folder / name


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("TapasForQuestionAnswering", "table-question-answering"),
        ("BartForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("T5WithLMHeadModel", "text2text-generation"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("ViTForImageClassification", "image-classification"),
        ("OursForTokenClassification", "token-classification"),
    ],
)
def test_the_task_is_found_and_left_in_the_environment(architecture, task, tmp_path):
    import os

    path = configured(tmp_path, architectures=[architecture], model_type="marian" if "Marian" in architecture else "")
    assert infer_task_from_model_architecture(str(path)) == task == os.environ["HF_TASK"]


def test_another_architecture_of_a_model_can_be_asked_for(tmp_path):
    names = ["BertForMaskedLM", "BertForQuestionAnswering"]
    path = configured(tmp_path, architectures=names)
    assert infer_task_from_model_architecture(path, architecture_index=1) == "question-answering"
    path = configured(tmp_path, "other.json", architectures=names)
    assert infer_task_from_model_architecture(path) == "fill-mask"


def test_an_architecture_of_one_s_own_can_be_taught(tmp_path, monkeypatch):
    path = configured(tmp_path, architectures=["OursForJudging"])
    with pytest.raises(ValueError, match="OursForJudging tells no task; set HF_TASK"):
        infer_task_from_model_architecture(path)
    monkeypatch.setitem(ARCHITECTURES_2_TASK, "ForJudging", "text-classification")
    assert infer_task_from_model_architecture(path) == "text-classification"
    with pytest.raises(ValueError, match="names 1 architectures"):
        infer_task_from_model_architecture(path, 1)


def test_the_hub_tells_the_task(monkeypatch):
    asked = []

    class HfApi:
        def model_info(self, *args, **kwargs):
            asked.append((args, kwargs))
            return type("Info", (), {"pipeline_tag": None if "odd" in args[0] else "summarization"})

    monkeypatch.setattr("huggingface_hub.HfApi", HfApi)
    assert infer_task_from_hub("org/m", revision="v1", use_auth_token="t") == "summarization"
    assert asked == [(("org/m",), {"revision": "v1", "token": "t"})]
    with pytest.raises(ValueError, match="shows no task for org/odd"):
        infer_task_from_hub("org/odd")


# Pipelines


def test_a_task_that_transformers_has_is_its_own_pipeline(saved):
    pipe = get_pipeline(task="sentiment-analysis", device=-1, model_dir=saved("text-classification-bert"))
    assert type(pipe).__module__.startswith("transformers.pipelines.")
    assert set(pipe("good", top_k=1)[0]) == {"label", "score"}
    assert (pipe.task, pipe.model.config.model_type) == ("text-classification", "bert")


def test_question_answering_answers_as_the_dropped_pipeline_did(saved):
    golden = json.loads((GOLDEN / "question_answering.json").read_text(encoding="utf-8"))
    pipe = get_pipeline(task="question-answering", model_dir=str(saved("question-answering")), device=-1)
    for request, answer in zip(golden["requests"], golden["answers"]["question-answering"], strict=True):
        got = pipe(request["inputs"], **request.get("parameters", {}), batch_size=2)
        assert _spans(got) == _spans(answer)
    by_name = pipe(question=ASKED["question"], context=ASKED["context"], top_k=2)
    assert by_name == pipe(ASKED, top_k=2) and len(by_name) == 2


def _spans(answer):
    """Where the answers stand, without their scores, which differ in the last digits."""
    if isinstance(answer, list):
        return [_spans(each) for each in answer]
    return answer["start"], answer["end"], answer["answer"]


@pytest.mark.parametrize("name", ["summarization-bart", "translation-marian", "text2text-generation-t5"])
def test_generation_answers_as_the_dropped_pipelines_did(name, saved):
    golden = [each[1:] for each in json.loads((GOLDEN / "text2text.json").read_text()) if each[0] == name]
    task = golden[0][0]
    pipe = get_pipeline(task=task, model_dir=saved(name), device=-1)
    for _, request, answer in [each for each in golden if each[0] == task][:8]:
        assert pipe(request["inputs"], **request["parameters"]) == answer


def test_a_dropped_task_has_the_model_and_the_tokenizer_that_user_code_asks_for(saved):
    import torch
    from transformers import AutoModelForQuestionAnswering

    folder = saved("question-answering")
    pipe = get_pipeline("question-answering", -1, folder)
    assert (pipe.task, str(pipe.device), pipe.model.config.model_type) == ("question-answering", "cpu", "bert")
    encoded = pipe.tokenizer(["Where?", "Where is it?"], ["In London.", "In Paris."], padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours = pipe.model(**encoded).start_logits
        plain = AutoModelForQuestionAnswering.from_pretrained(folder).eval()(**encoded).start_logits
    kept = encoded["attention_mask"].bool()
    torch.testing.assert_close(ours[kept], plain[kept], rtol=1e-4, atol=1e-4)


def test_a_dropped_task_says_what_it_does_not_take(saved):
    pipe = get_pipeline("question-answering", -1, saved("question-answering"))
    with pytest.raises(InvalidInput, match=r"parameters.topp: not known; there are top_k"):
        pipe(ASKED, topp=1)
    with pytest.raises(InvalidInput):
        pipe()


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (None, LoadError, "set HF_TASK"),
        ("text-to-image", LoadError, "did not load"),
        ("no-such-task", SettingsError, "there is no such task"),
    ],
)
def test_a_pipeline_that_cannot_be_says_why(task, error, words, tmp_path):
    with pytest.raises(error, match=words):
        get_pipeline(task, -1, tmp_path)


def test_what_get_pipeline_does_not_take_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"does not take model_kwargs, x; give them to transformers.pipeline"):
        get_pipeline("summarization", -1, tmp_path, x=1, model_kwargs={})


@pytest.mark.parametrize(("given", "device"), [(-1, "cpu"), (0, "cuda:0"), (1, "cuda:1"), ("cpu", "cpu")])
def test_a_device_is_a_number_or_a_name(given, device):
    assert transformers_utils._device(given) == device


def test_no_device_lets_the_settings_choose(monkeypatch):
    monkeypatch.setenv("HFSERVE_DEVICE", "cpu")
    assert transformers_utils._device(None) == "cpu"


# Hooks of one's own on a task that transformers dropped


def with_code(folder, tmp_path, **sources):
    """The model of a folder under another, with code."""
    model = tmp_path / "model"
    (model / "code").mkdir(parents=True)
    for file in folder.iterdir() if folder else ():
        (model / file.name).symlink_to(file)
    for name, source in sources.items():
        (model / "code" / f"{name}.py").write_text(source)
    return model


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A model with code, as a worker loads it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(hooks, "_code_dirs", [])

    def loaded(folder, *, handler=None, **sources):
        model = with_code(folder, tmp_path, **sources)
        settings = Settings.read().model_copy(update={"handler": handler, "device": "cpu"})
        return load(Artifact(model, "m", code_dir=model / "code"), settings)

    yield loaded
    sys.modules.pop("service", None)


def ask(model: HookModel, body, content_type="application/json", accept="*/*"):
    """The reply to one request, or the error that stands for it."""
    headers = {"content-type": content_type, "accept": accept}
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    [outcome] = model.run(model.prepare(Request(body, headers, "id", time.monotonic() + 9)).items, 1)
    return outcome


def test_predict_fn_alone_gets_a_callable_for_a_dropped_task(loaded, saved):
    source = "def predict_fn(data, model):\n    return [model(data['inputs'])['answer'], model.task]\n"
    model = loaded(saved("question-answering"), inference=source)
    answer, task = json.loads(ask(model, {"inputs": ASKED}).body)
    assert answer in ASKED["context"] and task == "question-answering"


# The service

HEAD = """
from hfserve import NotFound
from sagemaker_huggingface_inference_toolkit.handler_service import HuggingFaceHandlerService
"""
ECHO = (
    HEAD
    + """
class Service(HuggingFaceHandlerService):
    def load(self, model_dir):
        return lambda inputs, **parameters: {"got": inputs, **parameters}

handle = Service().handle
"""
)


def test_a_service_that_overrides_nothing_serves_the_model(loaded, saved):
    model = loaded(saved("text-classification-bert"), handler="service", service=HEAD + """
handle = HuggingFaceHandlerService().handle
""")  # fmt: skip
    reply = ask(model, {"inputs": "good", "parameters": {"top_k": 1}})
    assert [set(each) for each in json.loads(reply.body)] == [{"label", "score"}]
    assert reply.content_type == "application/json"
    table = ask(model, b"inputs\ngood\nbad\n", "text/csv", "text/csv;q=0.9, */*;q=0.1")
    assert table.body.startswith(b"label,score\r\n") and table.content_type == "text/csv"
    assert len(table.body.splitlines()) == 3


def test_a_service_serves_a_task_that_transformers_dropped(loaded, saved):
    model = loaded(saved("question-answering"), handler="service", service=HEAD + """
class Service(HuggingFaceHandlerService):
    def postprocess(self, prediction, accept):
        return super().postprocess({"answer": prediction["answer"]}, accept)

handle = Service().handle
""")  # fmt: skip
    assert set(json.loads(ask(model, {"inputs": ASKED}).body)) == {"answer"}
    assert isinstance(ask(model, {"inputs": "no question"}), InvalidInput)


def test_no_client_of_a_service_makes_a_pipeline_fetch_or_open(loaded, saved, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    model = loaded(saved("image-classification"), handler="service", service=HEAD + """
handle = HuggingFaceHandlerService().handle
""")  # fmt: skip
    for inputs in (str(tmp_path / "secret.png"), "http://127.0.0.1:9/x.png"):
        assert isinstance(ask(model, {"inputs": inputs}), InvalidInput)
    assert json.loads(ask(model, png("RGB"), "image/png").body)[0].keys() == {"label", "score"}


def test_load_can_be_overridden_and_parameters_reach_the_model(loaded):
    model = loaded(None, handler="service:handle", service=ECHO)
    assert json.loads(ask(model, {"inputs": "a", "parameters": {"x": 1}}).body) == {"got": "a", "x": 1}
    assert json.loads(ask(model, [1, 2]).body) == {"got": [1, 2]}


@pytest.mark.parametrize(("content_type", "body", "seen"), [
    ("application/json; charset=utf-8", b'"\xc3\xa9"', "application/json str"),
    ("Text/CSV", b"inputs\na\n", "text/csv str"),
    ("image/png", b"\x89", "image/png bytearray"),
    ("", b"{}", "application/json str"),
])  # fmt: skip
def test_a_step_sees_the_bare_type_and_text_where_it_is_text(content_type, body, seen, loaded):
    model = loaded(None, handler="service", service=ECHO.replace("handle =", """
    def preprocess(self, input_data, content_type, context):
        return f"{content_type} {type(input_data).__name__} {context.get_request_id()}"

handle ="""))  # fmt: skip
    assert json.loads(ask(model, body, content_type).body) == {"got": f"{seen} id"}


def test_a_service_chooses_type_and_status_of_its_answer(loaded):
    model = loaded(None, handler="service", service=ECHO.replace("handle =", """
    def postprocess(self, prediction, accept, context):
        context.set_response_content_type(0, "text/html")
        context.set_response_status(202, "Accepted")
        return "<p>"

handle ="""))  # fmt: skip
    reply = ask(model, {})
    assert (reply.body, reply.content_type, reply.status) == (b"<p>", "text/html", 202)


def test_transform_fn_can_be_overridden(loaded):
    model = loaded(None, handler="service", service=ECHO.replace("handle =", """
    def transform_fn(self, model, input_data, content_type, accept, context=None):
        return f"{content_type} {accept}"

handle ="""))  # fmt: skip
    assert ask(model, {}, accept="text/plain, */*;q=0.1").body == b"application/json text/plain"


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        ("NotFound('no such colour')", 404, "no such colour"),
        ("PredictionException('no such form', 422)", 422, "no such form"),
        ("PredictionException('go away', 403)", 403, "go away"),
        ("PredictionException('odd', 42)", 500, "odd"),
        ("ValueError('no luck')", 500, "code/service.py:"),
    ],
)
def test_an_error_in_a_step_keeps_its_status(raised, status, words, loaded):
    source = ECHO.replace("handle =", f"""
    def predict(self, data, model):
        from mms.service import PredictionException; raise {raised}

handle =""")  # fmt: skip
    error = ask(loaded(None, handler="service", service=source), {})
    assert isinstance(error, ServeError) and error.status == status
    assert words in str(error)


def test_bodies_and_forms_that_are_not_known_have_their_own_errors(loaded):
    model = loaded(None, handler="service", service=ECHO)
    assert isinstance(ask(model, b"{"), BadRequest)
    assert isinstance(ask(model, b"x", "application/x-thing"), UnsupportedMediaType)
    assert isinstance(ask(model, {}, accept="application/x-thing"), NotAcceptable)


def test_hooks_beside_a_service_take_over_their_steps(loaded):
    model = loaded(None, handler="service", service=ECHO, inference="""
def input_fn(body, content_type):
    return {"inputs": body.upper()}

def output_fn(prediction, accept, context):
    return f"{prediction['got']} {context.get_request_id()}", "text/plain"
""")  # fmt: skip
    reply = ask(model, b'"a"')
    assert (reply.body, reply.content_type) == (b'"A" id', "text/plain")


def test_hooks_that_nobody_said_to_trust_are_not_run(tmp_path):
    """A Hub model can bring a code/ directory, which hfserve puts on the path only when it is told to."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("raise SystemExit('input_fn was run')\n")
    service = HuggingFaceHandlerService()
    service.model_dir = str(tmp_path)
    service.validate_and_initialize_user_module()
    assert service.preprocess("{}", "application/json") == {}


def test_a_service_that_cannot_load_says_so_at_the_start(loaded, tmp_path):
    from hfserve.errors import HookError

    with pytest.raises(HookError, match=r"handle raised LoadError: .*model has none of config.json"):
        loaded(None, handler="service", service=HEAD + "handle = HuggingFaceHandlerService().handle\n")


def test_a_service_takes_the_gpu_that_the_worker_has():
    service = HuggingFaceHandlerService()
    for gpu_id, device in ((None, -1), (1, 1)):
        service.context = Context(None, model_dir=Path("/m"), gpu_id=gpu_id)
        assert service.get_device() == device
    assert handler_service.STEPS["model_fn"] == "load"
