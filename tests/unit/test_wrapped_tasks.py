"""Every wrapped task answers as transformers' pipeline does, whatever its family, parameters and inputs."""

import base64
import io
import itertools
import json
import os
import struct
import wave
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve import codecs
from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import JSON
from hfserve.settings import Options
from hfserve.tasks import masks
from hfserve.tasks.answers import jsonable
from hfserve.tasks.forms import parse
from hfserve.tasks.pipeline import PipelineRunner
from hfserve.tasks.table import TASKS
from server import thoroughly

torch.set_num_threads(1)

RATE = 16_000
SIZES = [(32, 32), (53, 37), (5, 90), (1, 1)]
MODES = ["RGB", "L", "RGBA", "P", "1", "LA"]
LABELS = ["sky", "海の見える街", "Ähre & café", "🌤"]
WORDS = [
    ["Total", [10, 10, 90, 40]],
    ["Café", [100, 10, 140, 40]],
    ["12,50", [150, 10, 190, 40]],
    ["東京", [0, 50, 60, 90]],
]
pytestmark = pytest.mark.filterwarnings("ignore:std")


@pytest.fixture(scope="module")
def runner(saved):
    """The runner of a tiny model, loaded once."""
    made = {}

    def runner(name):
        if name not in made:
            made[name] = PipelineRunner(TASKS[tiny.task_of(name)], saved(name), Options())
        return made[name]

    return runner


@pytest.fixture(scope="module")
def pipe(saved):
    """transformers' pipeline of a tiny model, loaded once."""
    made = {}

    def pipe(name):
        if name not in made:
            made[name] = transformers.pipeline(tiny.task_of(name), model=str(saved(name)), device="cpu")
        return made[name]

    return pipe


def _ask(runner, inputs, **parameters):
    """The answer as a client gets it."""
    torch.manual_seed(0)
    data = {"inputs": inputs, "parameters": parameters}
    (outcome,) = runner.run(runner.items(data))
    if isinstance(outcome, Exception):
        raise outcome
    answer = json.loads(codecs.encode(runner.result(data, [outcome]), JSON))
    _check(runner.task.schema, data, answer)
    return answer


def _check(schema, data, answer):
    """Raise where a request or its answer is not what the task's types declare."""
    parameters = {name: value for name, value in data["parameters"].items() if name != "generate_kwargs"}
    parse(schema.parameters, {**parameters, **data["parameters"].get("generate_kwargs", {})}, Options())
    pairs = [(data["inputs"], answer)]
    if isinstance(data["inputs"], list) and not _fits(schema.inputs, data["inputs"]):
        pairs = zip(data["inputs"], answer, strict=True)
    for inputs, each in pairs:
        TypeAdapter(schema.inputs).validate_python(inputs)
        TypeAdapter(schema.answer).validate_python(each)


def _fits(kind, value):
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _directly(pipe, *inputs, **parameters):
    """What the pipeline answers, in what a client would get."""
    torch.manual_seed(0)
    return json.loads(codecs.encode(jsonable(pipe(*inputs, **parameters)), JSON))


def _picture(size=(53, 37), mode="RGB", seed=0):
    width, height = size
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    colours = np.stack([x * 195 // width, y * 195 // height, (x + y) % 195], axis=-1)
    return Image.fromarray((colours + noise).astype(np.uint8)).convert(mode)


def _sent(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _sound(seconds, rate=RATE):
    at = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(at)) * 0.05
    return (0.4 * np.sin(2 * np.pi * (200 + 90 * at) * at) + noise).astype(np.float32)


def _samples(sound, rate=RATE):
    return {"array": sound.tolist(), "sampling_rate": rate}


def _wav(sound, rate=RATE):
    """The same samples in base64: a WAV file can hold them as they are."""
    data = sound.astype("<f4").tobytes()
    form = struct.pack("<8sIHHIIHH", b"WAVEfmt ", 16, 3, 1, rate, rate * 4, 4, 32)
    body = form + struct.pack("<4sI", b"data", len(data)) + data
    return base64.b64encode(struct.pack("<4sI", b"RIFF", len(body)) + body).decode()


def _film(frames=8, size=(32, 24)):
    """A film as MP4, each frame another colour."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(8))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_image(_picture(size, seed=i))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


# Pictures

OF_PICTURES = [
    "image-classification", "image-feature-extraction", "image-segmentation", "image-segmentation-maskformer",
    "image-segmentation-mask2former", "object-detection", "depth-estimation", "depth-estimation-dpt",
]  # fmt: skip
TOO_NARROW = {
    "object-detection": [(5, 90)], "depth-estimation": [(5, 90), (1, 1), (20, 30)], "depth-estimation-dpt": [(1, 1)]
}  # fmt: skip
"""What the pipeline fails on: sides that shrink to nothing, and depths that do not differ."""


@pytest.mark.parametrize("name", OF_PICTURES)
def test_pictures_of_all_sizes_and_modes(runner, pipe, name):
    for picture in [*map(_picture, SIZES), *(_picture((20, 30), mode) for mode in MODES)]:
        if picture.size in TOO_NARROW.get(name, ()):
            continue
        assert _ask(runner(name), _sent(picture)) == _directly(pipe(name), picture)


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_list_of_pictures_keeps_order_and_number(runner, pipe, name):
    pictures = [_picture(seed=1), _picture((40, 64), seed=2), _picture(seed=3)]
    answers = _ask(runner(name), [_sent(picture) for picture in pictures])
    assert answers == [_directly(pipe(name), picture) for picture in pictures]
    assert _ask(runner(name), [_sent(pictures[0])]) == answers[:1]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("image-classification", {"top_k": 2}),
        ("image-classification", {"top_k": 1, "function_to_apply": "sigmoid"}),
        ("image-classification", {"function_to_apply": "none"}),
        ("image-feature-extraction", {"pool": True}),
        ("image-feature-extraction", {"pool": False, "return_tensors": True}),
        ("image-segmentation", {"subtask": "semantic"}),
        *(
            (f"image-segmentation-{family}", {"subtask": subtask, **more})
            for family in ("maskformer", "mask2former")
            for subtask in ("semantic", "instance", "panoptic")
            for more in ({}, {"threshold": 0.2, "mask_threshold": 0.4, "overlap_mask_area_threshold": 0.1})
        ),
        ("object-detection", {"threshold": 0.0}),
        ("object-detection", {"threshold": 0.35}),
    ],
)
def test_parameters_of_tasks_about_pictures(runner, pipe, name, parameters):
    picture = _picture()
    assert _ask(runner(name), _sent(picture), **parameters) == _directly(pipe(name), picture, **parameters)


def test_every_kind_of_segmentation_finds_something(runner):
    found = {
        subtask: _ask(runner("image-segmentation-mask2former"), _sent(_picture()), subtask=subtask, threshold=0.1)
        for subtask in ("semantic", "instance", "panoptic")
    }
    assert all(found.values())
    assert {each["label"] for rows in found.values() for each in rows} <= {"ciel 🌤", "海", "Sand & Ähre"}
    for each in itertools.chain(*found.values()):
        assert Image.open(io.BytesIO(base64.b64decode(each["mask"]))).size == (53, 37)


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("image-segmentation", {"subtask": "panoptic"}, "panoptic"),
        ("object-detection", {"treshold": 1}, "parameters.treshold: not known; there are .*threshold"),
        ("image-feature-extraction", {"pol": True}, "parameters.pol: not known; there are .*pool"),
        ("depth-estimation", {"timeout": 1}, "parameters.timeout: not known"),
    ],
)
def test_wrong_parameters_of_tasks_about_pictures(runner, name, parameters, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        _ask(runner(name), _sent(_picture()), **parameters)


ZERO_SHOT = [
    "zero-shot-image-classification",
    "zero-shot-image-classification-siglip",
    "zero-shot-object-detection-owlvit",
]


@pytest.mark.parametrize("name", ZERO_SHOT)
@pytest.mark.parametrize("labels", [LABELS, ["sky"], ["a", "b", "c", "d", "e", "f", "g"]])
def test_labels_of_any_language_and_number(runner, pipe, name, labels):
    more = {"threshold": 0.0} if "detection" in name else {}
    picture = _picture((40, 64))
    answer = _ask(runner(name), _sent(picture), candidate_labels=labels, **more)
    assert answer == _directly(pipe(name), picture, candidate_labels=labels, **more)
    assert {each["label"] for each in answer} <= set(labels) and answer


def test_a_template_and_a_list_of_pictures(runner, pipe):
    name = "zero-shot-image-classification"
    pictures = [_picture(seed=1), _picture((9, 9), seed=2)]
    more = {"candidate_labels": LABELS, "hypothesis_template": "une photo de {} !"}
    answers = _ask(runner(name), [_sent(each) for each in pictures], **more)
    assert answers == [_directly(pipe(name), each, **more) for each in pictures]
    assert answers[0] != _ask(runner(name), _sent(pictures[0]), candidate_labels=LABELS)


def test_boxes_by_threshold_and_number(runner, pipe):
    name, picture = "zero-shot-object-detection-owlvit", _picture((40, 64))
    for more in ({"threshold": 0.0, "top_k": 3}, {"threshold": 0.9}):
        more["candidate_labels"] = LABELS
        assert _ask(runner(name), _sent(picture), **more) == _directly(pipe(name), picture, **more)


@pytest.mark.parametrize("sizes", [((48, 48), (48, 48)), ((53, 37), (20, 90))])
def test_matching_points(runner, pipe, sizes):
    name = "keypoint-matching"
    pair = [_picture(size, seed=i) for i, size in enumerate(sizes)]
    sent = [_sent(picture) for picture in pair]
    answer = _ask(runner(name), sent)
    assert answer == _directly(pipe(name), pair) and answer
    assert _ask(runner(name), {"images": sent}) == answer
    assert _ask(runner(name), [sent, sent[::-1]]) == [answer, _directly(pipe(name), pair[::-1])]
    threshold = answer[len(answer) // 2]["score"]
    fewer = _ask(runner(name), sent, threshold=threshold)
    assert fewer == _directly(pipe(name), pair, threshold=threshold) and len(fewer) < len(answer)


# Masks


def _suppressed(boxes, scores, classes, threshold):
    """Greedy suppression as its definition has it, a box at a time and in plain numbers."""
    boxes, scores, classes = boxes.tolist(), scores.tolist(), classes.tolist()
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(classes[i] != classes[k] or not _iou(boxes[i], boxes[k]) > threshold for k in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _iou(one, other):
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    union = areas - width * height
    return width * height / union if union else float("nan")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("classes", [1, 3])
def test_boxes_that_overlap_a_surer_one_are_suppressed(seed, classes):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 80))
    corners = rng.integers(0, 12, (count, 2, 2)).astype(np.float32)  # on a grid, so that many are equal or empty
    boxes = torch.tensor(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1))
    scores = torch.tensor(rng.integers(0, 20, count) / 20)  # with ties
    of = torch.tensor(rng.integers(0, classes, count))
    for threshold in (0.0, 0.25, 0.5, 0.7, 1.0):
        kept = masks.batched_nms(boxes, scores, of, threshold)
        assert kept.tolist() == _suppressed(boxes, scores, of, threshold).tolist()
        assert kept.dtype == torch.int64


def test_no_boxes_and_boxes_that_cannot_overlap():
    none = masks.batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), 0.5)
    assert none.shape == (0,) and none.dtype == torch.int64
    apart = torch.tensor([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1.0]])
    scores = torch.tensor([0.1, 0.3, 0.2])
    assert masks.batched_nms(apart, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [1, 2, 0]
    assert masks.batched_nms(apart, scores, torch.tensor([0, 0, 0]), 0.5).tolist() == [1, 2]


def _by_definition(rles, scores, boxes, threshold):
    """transformers' last step of mask generation, with suppression by its definition."""
    from transformers.models.sam.image_processing_pil_sam import _rle_to_mask

    kept = _suppressed(boxes.float(), scores, torch.zeros(len(boxes)), threshold)
    chosen = [rles[i] for i in kept]
    return [_rle_to_mask(rle) for rle in chosen], scores[kept], chosen, boxes[kept]


EAGER = {"pred_iou_thresh": -99.0, "stability_score_thresh": 0.0, "points_per_crop": 6, "mask_threshold": 4.0}


@pytest.fixture(scope="module")
def sam(pipe):
    made = pipe("mask-generation-sam")
    made.image_processor.post_process_for_mask_generation = _by_definition
    return made


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        EAGER,
        {**EAGER, "points_per_batch": 7},
        {**EAGER, "crops_nms_thresh": 0.2},
        {**EAGER, "crops_nms_thresh": 1.0},
        {**EAGER, "mask_threshold": 2.0, "stability_score_offset": 2, "stability_score_thresh": 0.2},
        {**EAGER, "crops_n_layers": 1, "crop_overlap_ratio": 0.2},
        {**EAGER, "output_rle_mask": True, "output_bboxes_mask": True},
    ],
)
def test_masks_are_those_of_the_pipeline(runner, sam, parameters):
    picture = _picture()
    answer = _ask(runner("mask-generation-sam"), _sent(picture), **parameters)
    assert answer == _directly(sam, picture, **parameters)
    assert len(answer["masks"]) == len(answer["scores"])


def test_masks_have_the_size_of_the_picture_and_fit_their_boxes(runner):
    more = {"output_rle_mask": True, "output_bboxes_mask": True}
    answer = _ask(runner("mask-generation-sam"), _sent(_picture()), **EAGER, **more)
    assert len(answer["masks"]) > 3 and answer["scores"] == sorted(answer["scores"], reverse=True)
    for encoded, rle, box in zip(answer["masks"], answer["rle_mask"], answer["bounding_boxes"], strict=True):
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        rows, columns = np.nonzero(mask)
        assert mask.shape == (37, 53) == tuple(rle["size"])
        edges = [columns.min(), rows.min(), columns.max(), rows.max()] if mask.any() else [0, 0, 0, 0]
        assert edges == box
        assert sum(rle["counts"][1::2]) == mask.sum()


def test_suppression_makes_a_difference(runner):
    counts = [
        len(_ask(runner("mask-generation-sam"), _sent(_picture()), **EAGER, crops_nms_thresh=threshold)["scores"])
        for threshold in (0.1, 0.7, 1.0)
    ]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2] == 6 * 6 * 3


def test_a_list_of_pictures_for_masks(runner, sam):
    pictures = [_picture((40, 64), seed=1), _picture((9, 30), "L", seed=2)]
    answers = _ask(runner("mask-generation-sam"), [_sent(picture) for picture in pictures], **EAGER)
    assert answers == [_directly(sam, picture, **EAGER) for picture in pictures]


def test_a_batch_of_no_points_is_refused(runner):
    with pytest.raises(InvalidInput, match="points_per_batch"):
        _ask(runner("mask-generation-sam"), _sent(_picture()), points_per_batch=0)


# Documents


def _document(picture=None, words=None, question="What is the total?"):
    sent = {"question": question}
    if picture is not None:
        sent["image"] = _sent(picture)
    return sent if words is None else {**sent, "word_boxes": words}


def _read(pipe, picture=None, words=None, question="What is the total?", **parameters):
    asked = {"question": question, "image": picture} | ({"word_boxes": words} if words else {})
    return _directly(pipe, asked, **parameters)


@pytest.mark.parametrize("name", ["document-question-answering", "document-question-answering-layoutlmv3"])
@pytest.mark.parametrize(
    "parameters",
    [
        {}, {"top_k": 3}, {"top_k": 5, "max_answer_len": 1}, {"handle_impossible_answer": True, "top_k": 9},
        {"doc_stride": 4, "max_seq_len": 40}, {"padding": "max_length"},
    ],
)  # fmt: skip
def test_words_with_boxes_are_read(runner, pipe, name, parameters):
    picture = _picture()
    answer = _ask(runner(name), _document(picture, WORDS), **parameters)
    assert answer == _read(pipe(name), picture, WORDS, **parameters)
    for each in answer if isinstance(answer, list) else [answer]:
        words = [word for word, _ in WORDS[each["start"] : each["end"] + 1]]
        assert each["answer"] in {" ".join(words), ""}


def test_words_alone_and_lists_of_questions(runner, pipe):
    name = "document-question-answering"
    asked = [_document(None, WORDS, "東京?"), _document(None, WORDS[:1], "What?")]
    direct = [_read(pipe(name), None, WORDS, "東京?"), _read(pipe(name), None, WORDS[:1], "What?")]
    assert _ask(runner(name), asked) == direct and _ask(runner(name), asked[0]) == direct[0]


def test_boxes_may_come_as_fractions_of_a_thousandth(runner):
    name, exact = "document-question-answering", [["Total", [10.4, 10.0, 90.7, 40.2]], *WORDS[1:]]
    assert _ask(runner(name), _document(None, exact)) == _ask(runner(name), _document(None, WORDS))


def test_long_documents_are_read_in_windows(runner, pipe):
    name, many = "document-question-answering", [[f"word{i}", [i, i, i + 9, i + 9]] for i in range(90)]
    answer = _ask(runner(name), _document(None, many), top_k=4, doc_stride=20)
    assert answer == _read(pipe(name), None, many, top_k=4, doc_stride=20) and len(answer) == 4


def test_a_picture_without_words_wants_a_reader_of_letters(runner):
    with pytest.raises(InvalidInput, match=r"OCR|word_boxes"):
        _ask(runner("document-question-answering"), _document(_picture()))


def test_a_model_that_reads_letters_itself_needs_no_words(runner, pipe):
    name = "document-question-answering-donut"
    for picture, question in ((_picture(), "What is the total?"), (_picture((90, 20)), "東京 ☕?")):
        answer = _ask(runner(name), _document(picture, None, question))
        assert answer == _read(pipe(name), picture, None, question)
        assert set(answer[0]) == {"answer"}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ("What?", "inputs.image is missing"),
        ({"question": "What?"}, "inputs.image is missing"),
        ({"word_boxes": WORDS}, "inputs.question is null"),
        ({"question": "What?", "word_boxes": "Total"}, "inputs.word_boxes has to be a list"),
        ({"question": "What?", "word_boxes": [["Total", [1, 2, 3]]]}, "inputs.word_boxes has to be a list"),
        ([{"question": "What?", "word_boxes": WORDS}, {"question": 7, "word_boxes": WORDS}], r"inputs\[1\].question"),
        ({"question": "What?", "word_boxes": [["Total", [1, 2, 3, 4000]]]}, "inputs.word_boxes"),
        ({"question": "What?", "word_boxes": [["Total", [1, 2, 3, "4"]]]}, "inputs.word_boxes"),
        ({"question": "What?", "word_boxes": [[7, [1, 2, 3, 4]]]}, "inputs.word_boxes"),
        ({"question": "What?", "word_boxes": [["Total", [5, 2, 3, 4]]]}, "inputs.word_boxes"),
        ({"question": "What?", "word_boxes": []}, "inputs.word_boxes"),
    ],
)
def test_wrong_documents_are_named(runner, inputs, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        _ask(runner("document-question-answering"), inputs)


# Sound

SPOKEN = ["automatic-speech-recognition", "automatic-speech-recognition-times"]


@pytest.mark.parametrize("name", [*SPOKEN, "audio-classification"])
@pytest.mark.parametrize("seconds", [0.2, 1.5])
def test_sounds_of_any_length(runner, pipe, name, seconds):
    sound = _sound(seconds)
    answer = _ask(runner(name), _samples(sound))
    assert answer == _directly(pipe(name), sound.copy()) and answer
    assert _ask(runner(name), [_samples(sound), _samples(sound[::-1])]) == [
        answer, _directly(pipe(name), sound[::-1].copy())
    ]  # fmt: skip


@pytest.mark.parametrize(
    "parameters",
    [
        {"return_timestamps": "char"},
        {"return_timestamps": "word"},
        {"chunk_length_s": 1},
        {"chunk_length_s": 1, "stride_length_s": 0.25, "return_timestamps": "word"},
        {"chunk_length_s": 1.5, "stride_length_s": [0.5, 0.1], "return_timestamps": "char"},
    ],
)
def test_letters_and_words_have_times(runner, pipe, parameters):
    name, sound = "automatic-speech-recognition", _sound(3.3)
    answer = _ask(runner(name), _samples(sound), **parameters)
    assert answer == _directly(pipe(name), sound.copy(), **parameters)
    assert ("chunks" in answer) == ("return_timestamps" in parameters) and answer["text"]


def test_pieces_of_a_sound_cover_all_of_it(runner):
    chunked = _ask(runner("automatic-speech-recognition"), _samples(_sound(3.3)), chunk_length_s=1)
    assert len(chunked["text"]) > len(_ask(runner("automatic-speech-recognition"), _samples(_sound(1)))["text"])


@pytest.mark.parametrize("seconds", [2, thoroughly(48)])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"return_timestamps": True},
        {"return_timestamps": "word"},
        {"return_timestamps": True, "return_language": True},
        {"language": "fr", "task": "translate"},
        {"generate_kwargs": {"language": "french", "max_new_tokens": 6}},
        {"chunk_length_s": 20},
        {"chunk_length_s": 25, "stride_length_s": [4, 2], "return_timestamps": True},
        {"chunk_length_s": 25, "return_timestamps": "word"},
        {"num_beams": 2, "max_new_tokens": 5},
    ],
)
def test_speech_in_segments_short_and_long(runner, pipe, seconds, parameters):
    name, sound = "automatic-speech-recognition-times", _sound(seconds)
    answer = _ask(runner(name), _samples(sound), **parameters)
    assert answer == _directly(pipe(name), sound.copy(), **parameters)
    assert set(answer) == ({"text", "chunks"} if "return_timestamps" in parameters else {"text"})
    for chunk in answer.get("chunks", []):
        assert {"text", "timestamp"} <= set(chunk)


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        (SPOKEN[0], {"return_timestamps": True}, "char"),
        (SPOKEN[1], {"return_timestamps": "char"}, "char"),
        (SPOKEN[0], {"return_language": True}, "Whisper"),
        (SPOKEN[0], {"chunk_length_s": 1, "stride_length_s": 2}, "stride"),
        (SPOKEN[1], {"language": "klingon"}, "language"),
        (SPOKEN[1], {"assistant_model": "x"}, "parameters.assistant_model: not known"),
    ],
)
def test_wrong_parameters_of_speech(runner, name, parameters, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        _ask(runner(name), _samples(_sound(1)), **parameters)


@pytest.mark.parametrize("parameters", [{"top_k": 1}, {"function_to_apply": "sigmoid"}, {"top_k": None}])
def test_parameters_of_audio_classification(runner, pipe, parameters):
    name, sound = "audio-classification", _sound(1)
    assert _ask(runner(name), _samples(sound), **parameters) == _directly(pipe(name), sound.copy(), **parameters)


@pytest.mark.parametrize("labels", [LABELS, ["music"]])
@pytest.mark.parametrize("more", [{}, {"hypothesis_template": "le son de {}"}])
def test_sounds_among_labels_of_any_language(runner, pipe, labels, more):
    name, sounds = "zero-shot-audio-classification", [_sound(0.5, 48_000), _sound(0.9, 48_000)]
    answers = _ask(runner(name), [_samples(each, 48_000) for each in sounds], candidate_labels=labels, **more)
    assert answers == [_directly(pipe(name), each.copy(), candidate_labels=labels, **more) for each in sounds]
    assert {each["label"] for each in answers[0]} == set(labels)


def _heard(answer):
    with wave.open(io.BytesIO(base64.b64decode(answer["audio"]))) as file:
        frames = file.readframes(file.getnframes())
        return file.getframerate(), struct.unpack(f"<{len(frames) // 2}h", frames)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("text-to-audio", {}),
        ("text-to-audio-musicgen", {}),
        ("text-to-audio-musicgen", {"do_sample": True, "max_new_tokens": 12}),
        ("text-to-audio-musicgen", {"guidance_scale": 1.0, "max_new_tokens": 9}),
    ],
)
@pytest.mark.parametrize("text", ["good food", "Ça va, 東京? 🌤 naïve"])
def test_texts_become_sounds(runner, pipe, name, parameters, text):
    answer = _ask(runner(name), text, **parameters)
    more = {"generate_kwargs": parameters} if parameters else {}
    assert answer == _directly(pipe(name), text, **more) == _ask(runner(name), text, **more)
    rate, samples = _heard(answer)
    assert rate == answer["sampling_rate"] == RATE and len(set(samples)) > 20
    assert _ask(runner(name), [text], **parameters) == [answer]


def test_longer_sounds_are_generated_when_asked(runner):
    lengths = [
        len(_heard(_ask(runner("text-to-audio-musicgen"), "good", max_new_tokens=count))[1]) for count in (8, 16)
    ]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("text", ["", "東京"])
def test_a_text_without_a_sound_is_told(runner, text):
    with pytest.raises(InvalidInput, match="none of the characters that the model can speak"):
        _ask(runner("text-to-audio"), text)


# Films


@pytest.mark.parametrize(
    "parameters",
    [
        {}, {"top_k": 1}, {"top_k": 99}, {"function_to_apply": "sigmoid"}, {"num_frames": 4, "frame_sampling_rate": 2},
    ],
)  # fmt: skip
def test_films_are_seen_as_the_pipeline_sees_them(runner, pipe, tmp_path, parameters):
    name, film = "video-classification", _film()
    (tmp_path / "film.mp4").write_bytes(film)
    answer = _ask(runner(name), base64.b64encode(film).decode(), **parameters)
    assert answer == _directly(pipe(name), str(tmp_path / "film.mp4"), **parameters)
    assert len(answer) == min(parameters.get("top_k", 5), 3)


def test_a_list_of_films(runner, pipe, tmp_path):
    name, films = "video-classification", [_film(), _film(5, (48, 64)), _film(4)]
    answers = _ask(runner(name), [base64.b64encode(film).decode() for film in films])
    for i, film in enumerate(films):
        (tmp_path / f"{i}.mp4").write_bytes(film)
    assert answers == [_directly(pipe(name), str(tmp_path / f"{i}.mp4")) for i in range(3)]
    assert _ask(runner(name), {"video": base64.b64encode(films[0]).decode()}) == answers[0]


@pytest.mark.parametrize(("frames", "parameters"), [(8, {"num_frames": 3}), (2, {}), (8, {"num_frames": 99})])
def test_a_film_of_too_few_frames_is_told(runner, frames, parameters):
    with pytest.raises(InvalidInput, match="another number of frames"):
        _ask(runner("video-classification"), base64.b64encode(_film(frames)).decode(), **parameters)


# Texts with pictures and sounds


@pytest.mark.parametrize("name", ["image-text-to-text-git", "image-text-to-text-llava"])
@pytest.mark.parametrize("size", [(32, 32), (53, 37), (90, 5)])
def test_pictures_go_with_texts(runner, pipe, name, size):
    picture, text = _picture(size), "Où est 東京? <image>" if name.endswith("llava") else "Où est Paris?"
    more = {"max_new_tokens": 5, "do_sample": False}
    answer = _ask(runner(name), {"image": _sent(picture), "text": text}, **more)
    assert answer == _directly(pipe(name), images=[picture], text=text, generate_kwargs=more)
    assert _ask(runner(name), {"images": [_sent(picture)], "text": text}, generate_kwargs=more) == answer
    alone = _ask(runner(name), {"image": _sent(picture), "text": text}, **more, return_full_text=False)
    assert (
        alone
        == _directly(pipe(name), images=[picture], text=text, generate_kwargs=more, return_full_text=False)
        != answer
    )


def _chat(picture, *texts):
    parts = [{"type": "image", "image": picture}, *({"type": "text", "text": text} for text in texts)]
    return [{"role": "user", "content": parts}]


def test_chats_with_pictures(runner, pipe):
    name, more = "image-text-to-text-llava", {"max_new_tokens": 4, "do_sample": False}
    pictures = [_picture(), _picture((20, 64), seed=2)]
    sent = [_chat(_sent(picture), "good", "food?") for picture in pictures]
    for i, picture in enumerate(pictures):
        answer = _ask(runner(name), sent[i], **more)
        assert answer == _directly(pipe(name), text=_chat(picture, "good", "food?"), generate_kwargs=more)
    assert _ask(runner(name), {"messages": sent[0]}, **more) == _ask(runner(name), sent[0], **more)
    assert _ask(runner(name), sent, **more) == [_ask(runner(name), each, **more) for each in sent]


def test_several_pictures_in_one_text(runner, pipe):
    name, more = "image-text-to-text-llava", {"max_new_tokens": 4, "do_sample": False}
    pictures, text = [_picture(), _picture((20, 64), seed=2)], "<image> or <image>?"
    answer = _ask(runner(name), {"images": [_sent(each) for each in pictures], "text": text}, **more)
    assert answer == _directly(pipe(name), images=pictures, text=text, generate_kwargs=more)
    with pytest.raises(InvalidInput, match="image"):
        _ask(runner(name), {"images": [_sent(pictures[0])], "text": text}, **more)


@pytest.mark.parametrize("name", ["image-text-to-text-git", "image-text-to-text-llava"])
def test_sampled_texts_and_several_of_them(runner, pipe, name):
    text = "<image> a" if name.endswith("llava") else "a"
    more = {"max_new_tokens": 5, "do_sample": True, "num_return_sequences": 3, "temperature": 1.5}
    answer = _ask(runner(name), {"image": _sent(_picture()), "text": text}, **more)
    assert answer == _directly(pipe(name), images=[_picture()], text=text, generate_kwargs=more)


@pytest.mark.parametrize("seconds", [0.5, 3])
def test_sounds_go_with_texts(runner, pipe, seconds):
    name, sound = "any-to-any-audio", _sound(seconds)
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>good?"
    answer = _ask(runner(name), {"text": text, "audio": _wav(sound)}, max_new_tokens=5)
    assert answer == _directly(pipe(name), text=text, audio=sound, generate_kwargs={"max_new_tokens": 5})
    assert _ask(runner(name), {"text": "Où?"}) == _directly(pipe(name), text="Où?")


# Precision


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("image-classification", {}),
        ("object-detection", {"threshold": 0}),
        ("depth-estimation", {}),
        ("mask-generation", {"pred_iou_thresh": 0, "stability_score_thresh": 0}),
        ("zero-shot-image-classification", {}),
        ("audio-classification", {}),
        ("zero-shot-audio-classification", {}),
    ],
)
def test_in_bfloat16_answers_are_near_those_of_float32(saved, runner, name, chosen):
    half = PipelineRunner(TASKS[tiny.task_of(name)], saved(name), Options(dtype="bfloat16"))
    assert half.pipe.model.dtype == torch.bfloat16
    example = half.task.example
    asked = {**example.get("parameters", {}), **chosen}
    ones, others = (np.array(_numbers(_ask(each, example["inputs"], **asked))) for each in (half, runner(name)))
    assert len(ones) and np.isfinite(ones).all() and not np.array_equal(ones, others)
    np.testing.assert_allclose(np.sort(ones), np.sort(others), atol=0.05)


def _numbers(answer):
    parts = list(answer.values()) if isinstance(answer, dict) else answer
    return [number for each in parts for number in _numbers(each)] if isinstance(parts, list) else _number(parts)


def _number(value):
    return [value] if isinstance(value, float) else []


def test_a_precision_that_the_device_lacks_is_told_at_load(saved):
    with pytest.raises(LoadError, match=r"HFSERVE_DTYPE=float16 is for GPUs"):
        PipelineRunner(TASKS["image-classification"], saved("image-classification"), Options(dtype="float16"))
