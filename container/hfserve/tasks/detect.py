"""Finds the task of a model directory from its files, for when HF_TASK does not name it.

The architecture in config.json decides, through transformers' own tables; the files beside it decide only where a bare
model reads several kinds of input. Zero-shot classification is never found: its models are text classifiers of
entailment like any other, so it has to be asked for.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hfserve.errors import LoadError

MAPPINGS = (
    ("DECISION", "decision"),
    ("TABLE_QUESTION_ANSWERING", "table-question-answering"),
    ("DOCUMENT_QUESTION_ANSWERING", "document-question-answering"),
    ("IMAGE_TEXT_TO_TEXT", "image-text-to-text"),
    ("SPEECH_SEQ_2_SEQ", "automatic-speech-recognition"),
    ("CTC", "automatic-speech-recognition"),
    ("RNNT", "automatic-speech-recognition"),
    ("TDT", "automatic-speech-recognition"),
    ("MULTIMODAL_LM", "any-to-any"),
    ("TEXT_TO_WAVEFORM", "text-to-audio"),
    ("TEXT_TO_SPECTROGRAM", "text-to-audio"),
    ("SEQ_TO_SEQ_CAUSAL_LM", "text2text-generation"),
    ("MASKED_LM", "fill-mask"),
    ("CAUSAL_LM", "text-generation"),
    ("SEQUENCE_CLASSIFICATION", "text-classification"),
    ("TOKEN_CLASSIFICATION", "token-classification"),
    ("QUESTION_ANSWERING", "question-answering"),
    ("MULTIPLE_CHOICE", "multiple-choice"),
    ("VISUAL_QUESTION_ANSWERING", "visual-question-answering"),
    ("AUDIO_CLASSIFICATION", "audio-classification"),
    ("IMAGE_CLASSIFICATION", "image-classification"),
    ("VIDEO_CLASSIFICATION", "video-classification"),
    ("IMAGE_SEGMENTATION", "image-segmentation"),
    ("SEMANTIC_SEGMENTATION", "image-segmentation"),
    ("INSTANCE_SEGMENTATION", "image-segmentation"),
    ("UNIVERSAL_SEGMENTATION", "image-segmentation"),
    ("OBJECT_DETECTION", "object-detection"),
    ("ZERO_SHOT_OBJECT_DETECTION", "zero-shot-object-detection"),
    ("ZERO_SHOT_IMAGE_CLASSIFICATION", "zero-shot-image-classification"),
    ("DEPTH_ESTIMATION", "depth-estimation"),
    ("MASK_GENERATION", "mask-generation"),
    ("KEYPOINT_MATCHING", "keypoint-matching"),
    ("IMAGE_TO_IMAGE", "image-to-image"),
    ("TEXT_ENCODING", "feature-extraction"),
    ("IMAGE", "image-feature-extraction"),
)
"""transformers' tables and their tasks. A class in several serves the first of them by default."""

ODD = {
    # In a table of their input, not of what they are for
    "DiaForConditionalGeneration": ("text-to-audio",),
    "VibeVoiceForConditionalGeneration": ("text-to-audio",),
    "Mistral4ForCausalLM": ("text-generation",),
    "AudioFlamingo3ForConditionalGeneration": ("any-to-any",),
    "MusicFlamingoForConditionalGeneration": ("any-to-any",),
    "VisionEncoderDecoderModel": ("image-to-text", "document-question-answering"),
    # In no table of a task
    "ClapModel": ("zero-shot-audio-classification",),
    # In a table of a task whose inputs they do not take: pop music to notes, protein, the states of a robot
    "Pop2PianoForConditionalGeneration": (),
    "EvollaForProteinText2Text": (),
    "PI0ForConditionalGeneration": (),
    # Bare models that only seem to read images, or only seem to read text
    "BltModel": ("feature-extraction",), "MiniMaxM3VLTextModel": ("feature-extraction",),
    "ClvpModelForConditionalGeneration": (), "DiaModel": (), "EvollaModel": (), "Exaone4_5_VisionModel": (),
    "MusicgenMelodyModel": (), "MusicgenModel": (), "PeAudioModel": (), "PeAudioVideoModel": (), "PeVideoModel": (),
}  # fmt: skip
"""Classes that transformers' tables would lead astray."""

ENDINGS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForCTC": "automatic-speech-recognition",
}
"""What the name of a class that transformers does not know, one that the model brings along, says by its ending."""

ALSO = {
    "text-classification": ("zero-shot-classification",),
    "text-generation": ("decision",),
    "image-text-to-text": ("image-to-text", "decision"),
    "text2text-generation": ("summarization", "translation"),
}
"""Tasks that the models of a task can serve as well, when asked."""

TRANSLATORS = ("fsmt", "m2m_100", "marian", "mbart", "nllb-moe", "seamless_m4t", "seamless_m4t_v2")
CROSS_ENCODER = {"sentence_transformers", "sbert_ce_default_activation_function"}
"""What sentence-transformers writes into the configuration of a model that compares two texts."""
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
IMAGE_FILES = ("preprocessor_config.json", "image_processor_config.json")


def detect(model_dir: Path) -> str:
    """The task of a model directory; raises LoadError when its files leave a choice."""
    if (model_dir / "modules.json").is_file() or (model_dir / "config_sentence_transformers.json").is_file():
        return _sentence_task(model_dir)
    if (model_dir / "config.json").is_file():
        return _task_of(_json(model_dir / "config.json"), model_dir)
    if (model_dir / "model_index.json").is_file():
        return "text-to-image"
    names = sorted(path.name for path in model_dir.iterdir()) if model_dir.is_dir() else []
    raise LoadError(
        f"{model_dir} has none of config.json, model_index.json and modules.json, from which the task is found; "
        f"there is {', '.join(names[:20]) or 'nothing'}"
    )


def possible(architecture: str) -> list[str]:
    """Every task that a class can serve, the most usual first."""
    found = _mapped(architecture) or _bare(architecture) or _pretrained(architecture) or _named(architecture)
    return list(dict.fromkeys([*found, *(other for task in found for other in ALSO.get(task, ()))]))


def _sentence_task(model_dir: Path) -> str:
    """sentence-transformers says in a file of its own which kind of model it saved."""
    about = model_dir / "config_sentence_transformers.json"
    kind = _json(about).get("model_type") if about.is_file() else None
    if kind != "CrossEncoder":
        return "feature-extraction"
    file = model_dir / "config.json"
    return "text-ranking" if file.is_file() and _has_one_label(_json(file)) else "text-classification"


def _task_of(config: Mapping[str, Any], model_dir: Path) -> str:
    architectures = config.get("architectures") or []
    if not architectures:
        raise LoadError(f"{model_dir / 'config.json'} names no architecture; set HF_TASK to say what the model is for")
    for architecture in architectures:
        tasks = _mapped(architecture)[:1] or _readable(_bare(architecture), model_dir) or _named(architecture)
        if len(tasks) == 1:
            return _refined(tasks[0], config, model_dir)
    tasks = tuple(task for architecture in architectures for task in possible(architecture))
    could = f"could serve {' or '.join(tasks)}" if tasks else "belongs to no task that is known here"
    raise LoadError(f"{', '.join(architectures)} of {model_dir / 'config.json'} {could}; choose with HF_TASK=…")


def _refined(task: str, config: Mapping[str, Any], model_dir: Path) -> str:
    """What the rest of the configuration says about a class with several uses."""
    if task == "fill-mask" and config.get("causal"):
        return "text-generation"
    if task == "text-classification" and CROSS_ENCODER & config.keys() and _has_one_label(config):
        return "text-ranking"
    if task != "text2text-generation":
        return task
    words = model_dir / "tokenizer_config.json"
    if words.is_file() and _json(words).get("tokenizer_class") == "TapexTokenizer":
        return "table-question-answering"
    families = {str(name).partition("_")[0] for name in config.get("task_specific_params") or ()}
    known = families & {"summarization", "translation"}
    if len(known) == 1:
        return known.pop()
    return "translation" if config.get("model_type") in TRANSLATORS else task


def _has_one_label(config: Mapping[str, Any]) -> bool:
    classifies = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())
    return classifies and (len(config.get("id2label") or ()) or config.get("num_labels")) == 1


def _mapped(architecture: str) -> tuple[str, ...]:
    """The tasks whose tables of transformers hold the class."""
    if architecture in ODD:
        return ODD[architecture]
    found = _tables().get(architecture, set())
    return tuple(dict.fromkeys(task for mapping, task in MAPPINGS if mapping in found))


def _bare(architecture: str) -> tuple[str, ...]:
    """The tasks of a model without a head, by what it reads; two when it reads text and images."""
    tables = _tables().get(architecture, set())
    if "MODEL" not in tables or "BACKBONE" in tables or architecture in ODD:
        return ()
    if set(_types(architecture)) & set(_names("MASK_GENERATION")):
        return ("mask-generation",)
    import transformers

    try:
        model = getattr(transformers, architecture)
        reads, first = set(_all(model.input_modalities)), model.main_input_name
    except (AttributeError, ImportError):
        return ()
    if reads == {"text"} and first == "input_ids":
        return ("feature-extraction",)
    if {"image"} <= reads <= {"image", "video"} or (reads == {"text"} and first == "pixel_values"):
        return ("image-feature-extraction",)
    return ("feature-extraction", "image-feature-extraction") if reads >= {"text", "image"} else ()


def _readable(tasks: tuple[str, ...], model_dir: Path) -> tuple[str, ...]:
    """Of the tasks of a bare model, those that the directory has a tokenizer or an image processor for."""
    text = any((model_dir / name).is_file() for name in TEXT_FILES)
    image = any((model_dir / name).is_file() for name in IMAGE_FILES)
    if len(tasks) < 2 or text == image:
        return tasks
    return ("feature-extraction",) if text else ("image-feature-extraction",)


def _pretrained(architecture: str) -> tuple[str, ...]:
    """The tasks of the classes that can take over the weights of a class for pretraining."""
    if "PRETRAINING" not in _tables().get(architecture, set()) or architecture in ODD:
        return ()
    heirs = (_names(table).get(kind) for table in ("MASKED_LM", "MODEL") for kind in _types(architecture))
    return tuple(dict.fromkeys(task for heir in heirs if heir for task in _mapped(_first(heir)) or _bare(_first(heir))))


def _named(architecture: str) -> tuple[str, ...]:
    """The task that the name says, for a class that transformers does not know."""
    if architecture in _tables():
        return ()
    return tuple(task for ending, task in ENDINGS.items() if architecture.endswith(ending))


@cache
def _tables() -> dict[str, set[str]]:
    """Every class of transformers that can be loaded, with the names of the tables that hold it."""
    from transformers.models.auto import modeling_auto

    found: dict[str, set[str]] = defaultdict(set)
    for variable in vars(modeling_auto):
        if variable.startswith("MODEL_") and variable.endswith("_NAMES"):
            table = variable.removeprefix("MODEL_FOR_").removesuffix("_NAMES").removesuffix("_MAPPING")
            for names in getattr(modeling_auto, variable).values():
                for name in _all(names):
                    found[name].add(table)
    return found


def _names(table: str) -> Mapping[str, Any]:
    """transformers' table from a type of model to its class."""
    from transformers.models.auto import modeling_auto

    variable = "MODEL_MAPPING_NAMES" if table == "MODEL" else f"MODEL_FOR_{table}_MAPPING_NAMES"
    names: Mapping[str, Any] = getattr(modeling_auto, variable)
    return names


def _types(architecture: str) -> Iterator[str]:
    """The types of model that a class is the bare model of, or pretrains."""
    for table in ("MODEL", "PRETRAINING"):
        yield from (kind for kind, names in _names(table).items() if architecture in _all(names))


def _all(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _first(names: Any) -> str:
    return _all(names)[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise LoadError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise LoadError(f"{path} holds no JSON object")
    return content
