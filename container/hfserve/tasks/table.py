"""The table of tasks: what each takes and gives, and a request that any model of it can answer."""

import base64
import math
import re
import struct
import zlib
from dataclasses import replace
from typing import Any

from hfserve.errors import LoadError, SettingsError
from hfserve.tasks.base import Task

# What a task takes
TEXT = "text"
TEXT_OR_CHAT = "text or chat"
TEXT_AND_LABELS = "text and candidate labels"
TABLE = "table and question"
CONTEXT = "question and context"
QUESTIONS = "state and questions"
IMAGE = "image"
IMAGE_PAIR = "two images"
IMAGE_AND_LABELS = "image and candidate labels"
IMAGE_AND_QUESTION = "image and question"
IMAGE_AND_TEXT = "image and text, or chat"
AUDIO = "audio"
AUDIO_AND_LABELS = "audio and candidate labels"
VIDEO = "video"
ANY = "text, images, videos and audio, or chat"

# What a task gives; TEXT and AUDIO are here as well
LABELS = "labels"
ENTITIES = "entities"
TOKENS = "tokens"
ANSWERS = "answers"
GENERATED = "generated text"
VECTORS = "vectors"
BOXES = "boxes"
MASKS = "masks"
DEPTH = "depth"
MATCHES = "matching points"


def _png(side: int = 32) -> str:
    """A small picture, in base64."""
    rows = b"".join(b"\0" + bytes(c for x in range(side) for c in (x * 7, y * 7, 128)) for y in range(side))
    return _base64(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _wav(samples: int = 4000, rate: int = 16_000) -> str:
    """A quarter of a second of the note A, in base64."""
    sound = struct.pack(f"<{samples}h", *(int(8000 * math.sin(math.tau * 440 * i / rate)) for i in range(samples)))
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(sound), b"WAVEfmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", len(sound)
    )
    return _base64(head + sound)


def _y4m(side: int = 16, frames: int = 16) -> str:
    """Sixteen frames from black to white, in base64."""
    head = f"YUV4MPEG2 W{side} H{side} F8:1 Ip A1:1 C420jpeg\n".encode()
    pictures = (bytes([16 * i]) * side**2 + bytes([128]) * (side**2 // 2) for i in range(frames))
    return _base64(head + b"".join(b"FRAME\n" + picture for picture in pictures))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _of(inputs: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs}


_PICTURE, _SOUND, _FILM = _png(), _wav(), _y4m()
_QUESTIONS = {"refund": {"type": "noul", "instructions": "Is a refund requested?"}}
_SALES = {"City": ["Paris", "Rome"], "Sales": ["12", "7"]}
_WORDS = [["Total", [10, 10, 90, 40]], ["12", [100, 10, 140, 40]]]
_SIGHTS, _SOUNDS, _TOPICS = ["sky", "sea"], ["music", "speech"], ["taste", "price"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("any-to-any", ANY, GENERATED, _of({"text": "Once upon a time"}, max_new_tokens=8)),
        Task("audio-classification", AUDIO, LABELS, _of(_SOUND)),
        Task("automatic-speech-recognition", AUDIO, TEXT, _of(_SOUND)),
        Task("decision", QUESTIONS, ANSWERS, _of({"state": "I was charged twice.", "questions": _QUESTIONS})),
        Task("depth-estimation", IMAGE, DEPTH, _of(_PICTURE)),
        Task("document-question-answering", IMAGE_AND_QUESTION, ANSWERS,
             _of({"image": _PICTURE, "question": "What is the total?", "word_boxes": _WORDS})),
        Task("feature-extraction", TEXT, VECTORS, _of("The food was good."),
             native="hfserve.tasks.feature_extraction:FeatureExtraction"),
        Task("fill-mask", TEXT, TOKENS, _of("The food was [MASK]."), native="hfserve.tasks.fill_mask:FillMask"),
        Task("image-classification", IMAGE, LABELS, _of(_PICTURE)),
        Task("image-feature-extraction", IMAGE, VECTORS, _of(_PICTURE)),
        Task("image-segmentation", IMAGE, MASKS, _of(_PICTURE)),
        Task("image-text-to-text", IMAGE_AND_TEXT, GENERATED,
             _of({"image": _PICTURE, "text": "A picture of"}, max_new_tokens=8)),
        Task("keypoint-matching", IMAGE_PAIR, MATCHES, _of([_PICTURE, _PICTURE])),
        Task("mask-generation", IMAGE, MASKS, _of(_PICTURE)),
        Task("object-detection", IMAGE, BOXES, _of(_PICTURE)),
        Task("question-answering", CONTEXT, ANSWERS,
             _of({"question": "Where does Ada live?", "context": "My name is Ada and I live in London."}),
             native="hfserve.tasks.question_answering:QuestionAnswering"),
        Task("summarization", TEXT, GENERATED, _of("The food was good, and so was the service.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text"),
        Task("table-question-answering", TABLE, ANSWERS, _of({"query": "How much did Rome sell?", "table": _SALES})),
        Task("text-classification", TEXT, LABELS, _of("The food was good."), aliases=("sentiment-analysis",),
             native="hfserve.tasks.text_classification:TextClassification"),
        Task("text-generation", TEXT_OR_CHAT, GENERATED, _of("Once upon a time", max_new_tokens=8)),
        Task("text2text-generation", TEXT, GENERATED, _of("Is it good? The food was good.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text"),
        Task("text-to-audio", TEXT, AUDIO, _of("Good morning."), aliases=("text-to-speech",)),
        Task("token-classification", TEXT, ENTITIES, _of("Ada Lovelace lived in London."), aliases=("ner",),
             native="hfserve.tasks.token_classification:TokenClassification"),
        Task("translation", TEXT, GENERATED, _of("The food was good.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text"),
        Task("video-classification", VIDEO, LABELS, _of(_FILM)),
        Task("zero-shot-audio-classification", AUDIO_AND_LABELS, LABELS, _of(_SOUND, candidate_labels=_SOUNDS)),
        Task("zero-shot-classification", TEXT_AND_LABELS, LABELS, _of("The food was good.", candidate_labels=_TOPICS),
             native="hfserve.tasks.zero_shot_classification:ZeroShotClassification"),
        Task("zero-shot-image-classification", IMAGE_AND_LABELS, LABELS, _of(_PICTURE, candidate_labels=_SIGHTS)),
        Task("zero-shot-object-detection", IMAGE_AND_LABELS, BOXES, _of(_PICTURE, candidate_labels=_SIGHTS)),
    )
}  # fmt: skip

DROPPED = ("image-to-image", "image-to-text", "text-to-image", "visual-question-answering")
"""Tasks that transformers 5 has no pipeline for: recognised, not served yet."""

_ALIASES = {alias: task.name for task in TASKS.values() for alias in task.aliases} | {
    "vqa": "visual-question-answering"
}


def find(name: str) -> Task:
    """The task of a name or an alias; `translation_en_to_fr` is translation under a name that tells the languages."""
    known = _ALIASES.get(name, name)
    if known in TASKS:
        return TASKS[known]
    if re.fullmatch("translation_.+_to_.+", known):
        return replace(TASKS["translation"], name=known)
    served = ", ".join(sorted(TASKS))
    if known in DROPPED:
        raise LoadError(f"the task {name} is recognised, yet not served by this version; it serves {served}")
    raise SettingsError(f"HF_TASK={name}: there is no such task; choose one of {served}")
