"""Wrapped tasks answer as transformers' pipelines do, and read what a client sends themselves."""

import base64
import importlib.util
import io
import json
import os
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve import codecs
from hfserve.errors import InvalidInput, LoadError, OutOfMemory
from hfserve.messages import JSON
from hfserve.settings import Options
from hfserve.tasks import media
from hfserve.tasks.answers import jsonable
from hfserve.tasks.media import resampled
from hfserve.tasks.pipeline import NEEDS, PipelineRunner, build
from hfserve.tasks.requests import FORMS
from hfserve.tasks.table import TASKS

torch.set_num_threads(1)

PICTURE = TASKS["image-classification"].example["inputs"]
SOUND = TASKS["audio-classification"].example["inputs"]
HERE = [
    name for name in tiny.NAMES
    if tiny.task_of(name) in FORMS and importlib.util.find_spec(NEEDS.get(tiny.task_of(name), "torch"))
]  # fmt: skip
IMAGE_TASKS = ["image-classification", "image-segmentation", "depth-estimation", "object-detection"]
SOUND_TASKS = ["audio-classification", "automatic-speech-recognition"]


@pytest.fixture(scope="module")
def runner(saved):
    """The runner of a tiny model, loaded once."""
    made = {}

    def runner(name):
        if name not in made:
            made[name] = PipelineRunner(TASKS[tiny.task_of(name)], saved(name), Options())
        return made[name]

    return runner


def _ask(runner, data):
    torch.manual_seed(0)
    items = runner.items(data)
    (outcome,) = runner.run(items)
    if isinstance(outcome, Exception):
        raise outcome
    return runner.result(data, [outcome])


def _picture(encoded=PICTURE):
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def _sound(rate):
    with wave.open(io.BytesIO(base64.b64decode(SOUND))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        return resampled(samples, file.getframerate(), rate)


def _directly(pipe, task, name):
    """What transformers answers to a task's example, decoded here by other means."""
    inputs, parameters = TASKS[task].example["inputs"], TASKS[task].example.get("parameters", {})
    torch.manual_seed(0)
    if task == "any-to-any":
        return pipe(text=inputs["text"], **{"generate_kwargs": parameters})
    if name == "image-text-to-text-llava":
        parts = [{"type": "image", "image": _picture()}, {"type": "text", "text": inputs["text"]}]
        chat = [{"role": "user", "content": parts}]
        (answer,) = pipe(text=chat, return_full_text=False, **parameters)
        parts[0].pop("image")
        return [{**answer, "input_text": chat}]
    if task == "image-text-to-text":
        return pipe(images=[_picture()], text=inputs["text"], **parameters)
    if task == "keypoint-matching":
        return pipe([_picture(), _picture()])
    if task == "document-question-answering":
        return pipe(image=_picture(), question=inputs["question"], word_boxes=inputs["word_boxes"])
    if task == "fill-mask":
        return pipe(inputs.replace("[MASK]", pipe.tokenizer.mask_token))
    if inputs == SOUND:
        return pipe(_sound(pipe.feature_extractor.sampling_rate), **parameters)
    return pipe(_picture() if inputs == PICTURE else inputs, **parameters)


def test_every_task_has_a_form_and_nearly_every_one_a_tiny_model():
    assert {task.name for task in TASKS.values() if not task.native} <= set(FORMS) <= set(TASKS)
    assert set(FORMS) <= {tiny.task_of(name) for name in tiny.NAMES}
    assert len(HERE) >= 35


@pytest.mark.parametrize("name", HERE)
def test_the_example_is_answered_as_transformers_does(runner, saved, name):
    task = tiny.task_of(name)
    if task in {"mask-generation", "table-question-answering", "video-classification"}:
        assert codecs.encode(_ask(runner(name), TASKS[task].example), JSON)
        return
    pipe = transformers.pipeline(task, model=str(saved(name)), device="cpu")
    answer = _ask(runner(name), TASKS[task].example)
    assert codecs.encode(answer, JSON) == codecs.encode(jsonable(_directly(pipe, task, name)), JSON)
    assert answer or task == "zero-shot-object-detection"


@pytest.mark.parametrize("task", sorted(set(NEEDS) - {tiny.task_of(name) for name in HERE}))
def test_a_missing_package_is_named_at_load(tmp_path, task):
    with pytest.raises(LoadError, match=f"{task} needs the package {NEEDS[task]}, which is not installed"):
        build(task, tmp_path, Options())


def test_each_request_is_an_item_of_its_own(runner):
    first, second = (runner("fill-mask").items({"inputs": "a [MASK]"})[0] for _ in range(2))
    assert first.cost == 1 and first.batch_key != second.batch_key and not runner("fill-mask").concurrent


# Forms of requests


@pytest.mark.parametrize(
    "data",
    ["a good [MASK]", {"inputs": "a good [MASK]", "options": {"wait_for_model": True}}, {"text": "a good <mask>"}],
)
def test_a_text_comes_bare_or_as_inputs(runner, data):
    assert _ask(runner("fill-mask"), data) == _ask(runner("fill-mask"), {"inputs": "a good [MASK]"})


def test_a_list_of_texts_keeps_order_and_number(runner):
    texts = ["the food", "the service is bad", "a"]
    alone = [_ask(runner("token-classification"), text) for text in texts]
    together = _ask(runner("token-classification"), {"inputs": texts})
    assert [[entity["word"] for entity in entities] for entities in together] == [
        [entity["word"] for entity in entities] for entities in alone
    ]
    assert _ask(runner("token-classification"), []) == [] == _ask(runner("image-classification"), {"inputs": []})


def test_images_come_as_base64_data_url_bytes_or_decoded(runner):
    raw = base64.b64decode(PICTURE)
    forms = [PICTURE, f"data:image/png;base64,{PICTURE}", raw, _picture(), np.asarray(_picture()), {"image": PICTURE}]
    answers = [_ask(runner("image-classification"), {"inputs": form}) for form in forms]
    assert answers == [answers[0]] * len(forms)
    assert _ask(runner("image-classification"), raw) == answers[0]
    assert _ask(runner("image-classification"), [PICTURE, raw]) == [answers[0]] * 2


def test_sounds_come_as_base64_bytes_or_samples(runner):
    samples = _sound(16_000)
    forms = [SOUND, base64.b64decode(SOUND), samples, {"array": samples.tolist(), "sampling_rate": 16_000}]
    answers = [_ask(runner("audio-classification"), {"inputs": form}) for form in forms]
    assert answers == [answers[0]] * len(forms)


def test_labels_stand_in_parameters_or_beside_the_input(runner):
    usual = {"inputs": PICTURE, "parameters": {"candidate_labels": ["sky", "sea"]}}
    inside = {"inputs": {"image": PICTURE, "candidate_labels": "sky, sea"}}
    bare = {"image": PICTURE, "candidate_labels": ["sky", "sea"]}
    model = runner("zero-shot-image-classification")
    assert _ask(model, usual) == _ask(model, inside) == _ask(model, bare)
    text = {"inputs": {"sequences": "good food", "candidate_labels": ["a", "b"], "multi_label": True}}
    assert len(_ask(runner("zero-shot-classification"), text)["labels"]) == 2


def test_a_prompt_may_be_a_chat(runner):
    chat = [{"role": "user", "content": "good food"}]
    settings = {"max_new_tokens": 3, "do_sample": False}
    (answer,) = _ask(runner("text-generation-llama"), {"inputs": chat, "parameters": settings})
    assert [message["role"] for message in answer["generated_text"]] == ["user", "assistant"]
    assert _ask(runner("text-generation-llama"), {"messages": chat, "parameters": settings}) == [answer]
    (two, _) = _ask(runner("text-generation-llama"), {"inputs": [chat, chat], "parameters": settings})
    assert two == [answer]


def test_generation_is_told_what_it_knows(runner):
    settings = {"do_sample": False, "return_full_text": False, "max_new_tokens": 2}
    nested = {"return_full_text": False, "generate_kwargs": {"do_sample": False, "max_new_tokens": 2}}
    longer = {**settings, "max_new_tokens": 9}
    model = runner("text-generation-gpt2")
    short, same, long = (_ask(model, {"inputs": "good", "parameters": each}) for each in (settings, nested, longer))
    assert short == same != long and long[0]["generated_text"].startswith(short[0]["generated_text"])
    pictured = {"inputs": {"image": PICTURE, "text": "a"}, "parameters": {"num_beams": 2, "max_new_tokens": 2}}
    assert _ask(runner("image-text-to-text-git"), pictured)[0]["generated_text"].startswith("a")


def test_a_chat_with_pictures_comes_back_without_them(runner):
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
        {"type": "text", "text": "a"},
    ]
    data = {"inputs": [{"role": "user", "content": parts}], "parameters": {"max_new_tokens": 2}}
    (answer,) = _ask(runner("image-text-to-text-llava"), data)
    assert answer["input_text"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "a"}]


def test_what_is_too_long_is_cut_where_the_pipeline_would_fail(runner):
    assert len(_ask(runner("feature-extraction"), "good " * 500)[0]) == 96
    assert len(_ask(runner("fill-mask"), "[MASK]" + " good" * 500)) == 5
    with pytest.raises(InvalidInput, match="longer than the 96 tokens that the model takes"):
        _ask(runner("feature-extraction"), {"inputs": "good " * 500, "parameters": {"truncation": False}})


# What is refused

ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data", "https://example.com/cat.png", "file:///etc/passwd", "/etc/passwd",
    "cat.png", "../../secret.wav", "data:image/png,cat", "", "aGVsbG8=",
]  # fmt: skip


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("name", [*IMAGE_TASKS, "zero-shot-object-detection", "image-feature-extraction"])
def test_an_image_is_never_fetched_or_opened(runner, monkeypatch, name, place):
    monkeypatch.setattr(transformers.image_utils, "load_image", pytest.fail)
    with pytest.raises(InvalidInput, match=r"^inputs"):
        runner(name).items({"inputs": place, "parameters": {"candidate_labels": ["a"]} if "zero" in name else {}})


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("name", [*SOUND_TASKS, "zero-shot-audio-classification"])
def test_a_sound_is_never_fetched_or_opened(runner, name, place):
    with pytest.raises(InvalidInput, match=r"^inputs"):
        runner(name).items({"inputs": place, "parameters": {"candidate_labels": ["a"]} if "zero" in name else {}})


@pytest.mark.parametrize("name", ["image-text-to-text-llava", "any-to-any"])
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "url": "https://example.com/cat.png"},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image", "image": "cat.png"},
        {"type": "video", "video": "film.mp4"},
        {"type": "text", "text": "a", "image": "cat.png"},
        {"type": "audio"},
        "cat.png",
    ],
)
def test_a_chat_holds_no_places_to_fetch(runner, name, part):
    data = {"inputs": [{"role": "user", "content": [part]}]}
    if isinstance(part, dict) and part.get("text"):
        content = runner(name).items(data)[0].data[0]["text"][0]["content"]
        assert content == [{"type": "text", "text": "a"}]
        return
    with pytest.raises(InvalidInput, match=r"^inputs\[0\].content\[0\]"):
        runner(name).items(data)


def test_other_doors_to_files_are_shut(runner):
    words = [["Total", [1, 2, 3, 4]]]
    document = {"image": "/etc/passwd", "question": "Who?", "word_boxes": words}
    with pytest.raises(InvalidInput, match=r"inputs\.image"):
        runner("document-question-answering").items({"inputs": document})
    request = {**TASKS["decision"].example["inputs"], "assets": {"img": "https://example.com/cat.png"}}
    with pytest.raises(InvalidInput, match=r"inputs\.assets\.img"):
        runner("decision").items({"inputs": request})
    with pytest.raises(InvalidInput, match=r"^inputs\[1\]"):
        runner("keypoint-matching").items({"inputs": [PICTURE, "cat.png"]})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("text-generation-gpt2", {"custom_generate": "someone/repository", "trust_remote_code": True}),
        ("text-generation-gpt2", {"assistant_model": "someone/repository"}),
        ("text-generation-gpt2", {"generation_config": {}}),
        ("text-generation-gpt2", {"generate_kwargs": {"custom_generate": "someone/repository"}}),
        ("text-generation-gpt2", {"tokenizer_encode_kwargs": {"chat_template": "{{ 1 }}"}}),
        ("text-to-audio", {"preprocess_params": {"voice_preset": "/etc/passwd"}}),
        ("image-classification", {"timeout": 1}),
        ("document-question-answering", {"tesseract_config": "--user-words /etc/passwd"}),
        ("feature-extraction", {"num_workers": 64}),
    ],
)
def test_parameters_load_no_code_and_open_no_file(runner, name, parameters):
    with pytest.raises(InvalidInput, match=r"^parameters\..*: not known"):
        runner(name).items({**TASKS[tiny.task_of(name)].example, "parameters": parameters})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("fill-mask", {}, r"inputs is missing; fill-mask takes text"),
        ("fill-mask", None, r"inputs is missing"),
        ("fill-mask", {"inputs": None}, r"inputs is missing"),
        ("fill-mask", {"inputs": 7}, r"inputs is a number; it has to be a string"),
        ("fill-mask", {"inputs": ["a [MASK]", 7]}, r"inputs\[1\] is a number"),
        ("fill-mask", {"inputs": "a", "parameters": [1]}, r"parameters is an object of names and values, not a list"),
        ("fill-mask", {"text": "a", "parameters": [1]}, r"parameters is a list; it has to be an object"),
        (
            "fill-mask",
            {"inputs": "a [MASK]", "parameters": {"topk": 1}},
            r"parameters.topk: not known.* top_k",
        ),
        ("text-generation-gpt2", {"inputs": 7}, r"inputs is a number"),
        (
            "text-generation-gpt2",
            {"inputs": "a", "parameters": {"length": 1}},
            r"length: not known; there are .*max_new_tokens",
        ),
        ("text-generation-llama", {"inputs": [{"role": "user"}]}, r"inputs\[0\] is not a message"),
        ("text-generation-llama", {"inputs": [{"role": "user", "content": 7}]}, r"inputs\[0\]\.content is a number"),
        ("zero-shot-classification", {"inputs": "a"}, r"parameters.candidate_labels is missing"),
        ("zero-shot-image-classification", {"inputs": PICTURE}, r"parameters.candidate_labels is missing"),
        ("zero-shot-audio-classification", {"inputs": SOUND}, r"parameters.candidate_labels is missing"),
        (
            "zero-shot-classification",
            {"inputs": "a", "parameters": {"candidate_labels": [1]}},
            r"candidate_labels: .*string",
        ),
        (
            "zero-shot-classification",
            {"inputs": "a", "parameters": {"candidate_labels": ["b"], "hypothesis_template": "{:>999999999}"}},
            r"parameters.hypothesis_template: has to be a sentence with {}",
        ),
        ("document-question-answering", {"inputs": {"question": "Who?"}}, r"inputs.image is missing"),
        ("document-question-answering", {"inputs": {"image": PICTURE}}, r"inputs.question is null"),
        (
            "document-question-answering",
            {"image": PICTURE, "question": "?", "word_boxes": [["a"]]},
            r"word_boxes has to be",
        ),
        ("decision", {"inputs": "a"}, r"inputs has to be .*questions"),
        ("keypoint-matching", {"inputs": [PICTURE]}, r"inputs has to be a list of two images"),
        ("image-classification", {"inputs": 7}, r"inputs is a number; it has to be an image in base64"),
        ("image-text-to-text-git", {"inputs": {"image": PICTURE}}, r"inputs.text is null"),
        ("image-text-to-text-git", {"inputs": {"picture": PICTURE, "text": "a"}}, r"inputs.picture: not known"),
        ("audio-classification", {"inputs": {"array": ["a"], "sampling_rate": 16000}}, r"inputs.array has to be"),
        ("audio-classification", {"inputs": {"array": [0.0]}}, r"inputs.sampling_rate has to be a number"),
        ("audio-classification", {"inputs": {"array": [], "sampling_rate": 16000}}, r"not empty"),
        ("text-to-audio", {"inputs": ["a", 7]}, r"inputs\[1\] is a number"),
    ],
)
def test_an_ill_formed_request_is_told_what_is_wrong(runner, name, data, message):
    with pytest.raises(InvalidInput, match=message):
        runner(name).items(data)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"table": {"a": ["1"]}}, r"inputs.query is null"),
        ({"query": "a"}, r"inputs.table is missing"),
        ({"query": "a", "table": {"a": ["1"], "b": []}}, "unequal length"),
    ],
)
def test_a_table_needs_columns_of_equal_length_and_a_question(value, message):
    with pytest.raises(InvalidInput, match=message):
        FORMS["table-question-answering"].read(value, "inputs", None)


def test_a_table_has_text_in_its_cells():
    read = FORMS["table-question-answering"].read({"query": "How many?", "table": {"Sales": [7, 8]}}, "inputs", None)
    assert read == {"query": "How many?", "table": {"Sales": ["7", "8"]}}


def test_a_film_is_opened_from_a_file_of_its_own():
    with media.openable(b"film") as path:
        assert Path(path).read_bytes() == b"film"
    assert not Path(path).exists()


# Errors of the pipeline


def test_what_the_pipeline_says_about_the_input_is_told(runner):
    with pytest.raises(InvalidInput, match="No mask_token"):
        _ask(runner("fill-mask"), "no mask here")
    with pytest.raises(InvalidInput):
        _ask(runner("text-generation-gpt2"), {"inputs": "a", "parameters": {"max_new_tokens": -1}})
    with pytest.raises(InvalidInput, match="char"):
        _ask(runner("automatic-speech-recognition"), {"inputs": SOUND, "parameters": {"return_timestamps": True}})


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("first\nsecond"), InvalidInput),
        (ValueError("x" * 9999), InvalidInput),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
    ],
)
def test_errors_have_their_kind_and_a_line(runner, monkeypatch, raised, expected):
    model = runner("fill-mask")
    monkeypatch.setattr(model.pipe, "forward", _failing(raised))
    (outcome,) = model.run(model.items("a [MASK]"))
    assert type(outcome) is expected and len(str(outcome)) < 400 and "\n" not in str(outcome)


def test_an_error_that_is_not_about_the_input_is_left_as_it_is(runner, monkeypatch):
    model = runner("fill-mask")
    monkeypatch.setattr(model.pipe, "forward", _failing(RuntimeError("device-side assert")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        model.run(model.items("a [MASK]"))


def _failing(error):
    def forward(*inputs, **parameters):
        raise error

    return forward


# Sound


def _wav(tag, bits, data, *, channels=1, rate=16_000, extensible=False):
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    if extensible:
        form = struct.pack("<H", 0xFFFE) + form[2:] + struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14)
    body = b"WAVE" + b"JUNK" + struct.pack("<I", 3) + b"abc\0"
    body += b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("tag", "bits", "data"),
    [
        (1, 8, bytes([128, 192, 64])),
        (1, 16, np.array([0, 1 << 14, -(1 << 14)], "<i2").tobytes()),
        (1, 24, b"\0\0\0" + b"\0\0\x40" + b"\0\0\xc0"),
        (1, 32, np.array([0, 1 << 30, -(1 << 30)], "<i4").tobytes()),
        (3, 32, np.array([0, 0.5, -0.5], "<f4").tobytes()),
        (3, 64, np.array([0, 0.5, -0.5], "<f8").tobytes()),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_usual_kind_of_wav_is_read(tag, bits, data, extensible):
    samples, rate = media.wav(_wav(tag, bits, data, extensible=extensible))
    assert rate == 16_000 and samples.tolist() == [0, 0.5, -0.5]


def test_channels_become_one():
    samples, _ = media.wav(_wav(1, 16, np.array([0, 1 << 14, 1 << 14, 0, 9], "<i2").tobytes(), channels=2))
    assert samples.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("broken", [b"RIFF....WAVE", _wav(2, 4, b"abc"), _wav(1, 16, b"")[:30], _wav(1, 16, b"")])
def test_a_broken_wav_is_told(runner, broken):
    with pytest.raises(InvalidInput, match=r"cannot be read|not empty"):
        runner("audio-classification").items(broken)


@pytest.mark.parametrize("rate", [0, 1, 10**9])
def test_a_rate_out_of_this_world_is_refused(runner, rate):
    with pytest.raises(InvalidInput, match="sampling_rate"):
        runner("audio-classification").items(_wav(1, 16, bytes(20), rate=rate))


@pytest.mark.parametrize(("rate", "wanted"), [(8_000, 16_000), (44_100, 16_000), (16_000, 48_000), (16_000, 16_000)])
def test_a_note_is_the_same_note_at_another_rate(rate, wanted):
    at = np.arange(rate // 2) / rate
    heard = resampled(np.sin(2 * np.pi * 440 * at), rate, wanted)
    expected = np.sin(2 * np.pi * 440 * np.arange(wanted // 2) / wanted)
    assert heard.dtype == np.float32 and len(heard) == wanted // 2
    assert np.abs(heard - expected).max() < 1e-3


# Answers


def test_answers_are_what_json_knows():
    answer = {"score": np.float32(0.5), "ids": torch.tensor([1, 2]), "grid": np.eye(2), "span": (np.int64(1), None)}
    expected = {"score": 0.5, "ids": [1, 2], "grid": [[1, 0], [0, 1]], "span": [1, None]}
    assert json.loads(codecs.encode(jsonable(answer), JSON)) == expected


def test_pictures_and_sounds_come_back_as_such(runner):
    (segment, *_) = _ask(runner("image-segmentation"), PICTURE)
    assert segment["mask"].size == (32, 32)
    mask = np.array([[True, False, True]])
    assert np.asarray(jsonable(torch.tensor(mask))).tolist() == mask.tolist()
    spoken = _ask(runner("text-to-audio"), "good food")
    assert spoken["audio"].sampling_rate == spoken["sampling_rate"] == 16_000 and spoken["audio"].samples.size > 100


# Loading


def test_a_pickle_is_loaded_only_when_asked_for(saved, tmp_path):
    name = "feature-extraction"
    for file in saved(name).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = transformers.AutoModel.from_pretrained(saved(name)).state_dict()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match=r"pytorch_model.bin is a pickle.*HFSERVE_ALLOW_PICKLE"):
        build(name, tmp_path, Options())
    assert build(name, tmp_path, Options(allow_pickle=True))("good")
    torch.save({**weights, "evil": _Evil(tmp_path / "owned")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match="did not load"):
        build(name, tmp_path, Options(allow_pickle=True))
    assert not (tmp_path / "owned").exists()


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_model_that_does_not_load_says_why(saved, tmp_path):
    with pytest.raises(LoadError, match=r"fill-mask model did not load: .*config"):
        build("fill-mask", tmp_path, Options())
    for file in saved("fill-mask").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(LoadError, match=r"fill-mask model did not load: .*(afetensor|header)"):
        build("fill-mask", tmp_path, Options())
