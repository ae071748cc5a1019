"""The table of tasks: what each takes and gives, and a request that any model of it can answer."""

import re
from dataclasses import replace
from typing import Any

from hfserve.errors import SettingsError
from hfserve.tasks import examples, kinds
from hfserve.tasks.base import Task
from hfserve.tasks.schemas import audio, diffusion, generation, pairs, text, vision


def _of(inputs: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs}


_PICTURE, _SOUND, _FILM = examples.png(), examples.wav(), examples.y4m()
_QUESTIONS = {"refund": {"type": "noul", "instructions": "Is a refund requested?"}}
_SALES = {"City": ["Paris", "Rome"], "Sales": ["12", "7"]}
_WORDS = [["Total", [10, 10, 90, 40]], ["12", [100, 10, 140, 40]]]
_SIGHTS, _SOUNDS, _TOPICS = ["sky", "sea"], ["music", "speech"], ["taste", "price"]
_FOODS = ["The food was good.", "The price was bad."]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("any-to-any", kinds.ANY, kinds.GENERATED, _of({"text": "Once upon a time"}, max_new_tokens=8),
             schema=generation.ANY_TO_ANY),
        Task("audio-classification", kinds.AUDIO, kinds.LABELS, _of(_SOUND), schema=audio.AUDIO_CLASSIFICATION),
        Task("automatic-speech-recognition", kinds.AUDIO, kinds.TEXT, _of(_SOUND),
             schema=audio.AUTOMATIC_SPEECH_RECOGNITION),
        Task("decision", kinds.QUESTIONS, kinds.ANSWERS,
             _of({"state": "I was charged twice.", "questions": _QUESTIONS}), schema=audio.DECISION),
        Task("depth-estimation", kinds.IMAGE, kinds.DEPTH, _of(_PICTURE), schema=vision.DEPTH_ESTIMATION),
        Task("document-question-answering", kinds.IMAGE_AND_QUESTION, kinds.ANSWERS,
             _of({"image": _PICTURE, "question": "What is the total?", "word_boxes": _WORDS}),
             schema=vision.DOCUMENT_QUESTION_ANSWERING),
        Task("feature-extraction", kinds.TEXT, kinds.VECTORS, _of("The food was good."),
             native="hfserve.tasks.feature_extraction:FeatureExtraction", schema=text.FEATURE_EXTRACTION),
        Task("fill-mask", kinds.TEXT, kinds.TOKENS, _of("The food was [MASK]."),
             native="hfserve.tasks.fill_mask:FillMask", schema=text.FILL_MASK),
        Task("image-classification", kinds.IMAGE, kinds.LABELS, _of(_PICTURE), schema=vision.IMAGE_CLASSIFICATION),
        Task("image-feature-extraction", kinds.IMAGE, kinds.VECTORS, _of(_PICTURE),
             schema=vision.IMAGE_FEATURE_EXTRACTION),
        Task("image-segmentation", kinds.IMAGE, kinds.MASKS, _of(_PICTURE), schema=vision.IMAGE_SEGMENTATION),
        Task("image-text-to-text", kinds.IMAGE_AND_TEXT, kinds.GENERATED,
             _of({"image": _PICTURE, "text": "A picture of"}, max_new_tokens=8),
             schema=generation.IMAGE_TEXT_TO_TEXT, streams=True),
        Task("image-to-image", kinds.IMAGE, kinds.PICTURE, _of(_PICTURE),
             native="hfserve.tasks.image_to_image:ImageToImage", schema=vision.IMAGE_TO_IMAGE),
        Task("image-to-text", kinds.IMAGE, kinds.GENERATED, _of(_PICTURE, max_new_tokens=8),
             native="hfserve.tasks.image_to_text:ImageToText", schema=vision.IMAGE_TO_TEXT),
        Task("keypoint-matching", kinds.IMAGE_PAIR, kinds.MATCHES, _of([_PICTURE, _PICTURE]),
             schema=vision.KEYPOINT_MATCHING),
        Task("mask-generation", kinds.IMAGE, kinds.MASKS, _of(_PICTURE), schema=vision.MASK_GENERATION),
        Task("multiple-choice", kinds.CHOICES, kinds.CHOICE,
             _of({"question": "How was the food?", "choices": ["good", "bad"]}),
             native="hfserve.tasks.multiple_choice:MultipleChoice", schema=pairs.MULTIPLE_CHOICE),
        Task("object-detection", kinds.IMAGE, kinds.BOXES, _of(_PICTURE), schema=vision.OBJECT_DETECTION),
        Task("question-answering", kinds.CONTEXT, kinds.ANSWERS,
             _of({"question": "Where does Ada live?", "context": "My name is Ada and I live in London."}),
             native="hfserve.tasks.question_answering:QuestionAnswering", schema=text.QUESTION_ANSWERING),
        Task("sentence-similarity", kinds.SENTENCES, kinds.SCORES,
             _of({"source_sentence": "I liked the food.", "sentences": _FOODS}),
             native="hfserve.tasks.sentence_similarity:SentenceSimilarity", schema=pairs.SENTENCE_SIMILARITY),
        Task("summarization", kinds.TEXT, kinds.GENERATED,
             _of("The food was good, and so was the service.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text", schema=generation.SUMMARIZATION, streams=True),
        Task("table-question-answering", kinds.TABLE, kinds.ANSWERS,
             _of({"query": "How much did Rome sell?", "table": _SALES}),
             native="hfserve.tasks.table_question_answering:load",
             schema=pairs.TABLE_QUESTION_ANSWERING),
        Task("text-classification", kinds.TEXT, kinds.LABELS, _of("The food was good."),
             aliases=("sentiment-analysis",), native="hfserve.tasks.text_classification:TextClassification",
             schema=text.TEXT_CLASSIFICATION),
        Task("text-generation", kinds.TEXT_OR_CHAT, kinds.GENERATED,
             _of("Once upon a time", max_new_tokens=8, do_sample=False),
             native="hfserve.tasks.text_generation:TextGeneration", schema=generation.TEXT_GENERATION, streams=True),
        Task("text-ranking", kinds.QUERY, kinds.RANKING,
             _of({"query": "How was the food?", "texts": _FOODS}),
             native="hfserve.tasks.text_ranking:TextRanking", schema=pairs.TEXT_RANKING),
        Task("text-to-audio", kinds.TEXT, kinds.AUDIO, _of("Good morning."), aliases=("text-to-speech",),
             schema=audio.TEXT_TO_AUDIO),
        Task("text-to-image", kinds.TEXT, kinds.PICTURE, _of("A red boat", num_inference_steps=2),
             native="hfserve.tasks.text_to_image:TextToImage", schema=diffusion.TEXT_TO_IMAGE),
        Task("text2text-generation", kinds.TEXT, kinds.GENERATED,
             _of("Is it good? The food was good.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text", schema=generation.TEXT2TEXT_GENERATION, streams=True),
        Task("token-classification", kinds.TEXT, kinds.ENTITIES, _of("Ada Lovelace lived in London."),
             aliases=("ner",), native="hfserve.tasks.token_classification:TokenClassification",
             schema=text.TOKEN_CLASSIFICATION),
        Task("translation", kinds.TEXT, kinds.GENERATED, _of("The food was good.", max_new_tokens=8),
             native="hfserve.tasks.text2text:Text2Text", schema=generation.TRANSLATION, streams=True),
        Task("video-classification", kinds.VIDEO, kinds.LABELS, _of(_FILM), schema=vision.VIDEO_CLASSIFICATION),
        Task("visual-question-answering", kinds.IMAGE_AND_QUESTION, kinds.ANSWERS,
             _of({"image": _PICTURE, "question": "What is in the picture?"}), aliases=("vqa",),
             native="hfserve.tasks.visual_question_answering:VisualQuestionAnswering",
             schema=vision.VISUAL_QUESTION_ANSWERING),
        Task("zero-shot-audio-classification", kinds.AUDIO_AND_LABELS, kinds.LABELS,
             _of(_SOUND, candidate_labels=_SOUNDS), schema=audio.ZERO_SHOT_AUDIO_CLASSIFICATION),
        Task("zero-shot-classification", kinds.TEXT_AND_LABELS, kinds.LABELS,
             _of("The food was good.", candidate_labels=_TOPICS),
             native="hfserve.tasks.zero_shot_classification:ZeroShotClassification",
             schema=text.ZERO_SHOT_CLASSIFICATION),
        Task("zero-shot-image-classification", kinds.IMAGE_AND_LABELS, kinds.LABELS,
             _of(_PICTURE, candidate_labels=_SIGHTS), schema=vision.ZERO_SHOT_IMAGE_CLASSIFICATION),
        Task("zero-shot-object-detection", kinds.IMAGE_AND_LABELS, kinds.BOXES,
             _of(_PICTURE, candidate_labels=_SIGHTS), schema=vision.ZERO_SHOT_OBJECT_DETECTION),
    )
}  # fmt: skip

_ALIASES = {alias: task.name for task in TASKS.values() for alias in task.aliases}


def find(name: str) -> Task:
    """The task of a name or an alias; `translation_en_to_fr` is translation under a name that tells the languages."""
    known = _ALIASES.get(name, name)
    if known in TASKS:
        return TASKS[known]
    if re.fullmatch("translation_.+_to_.+", known):
        return replace(TASKS["translation"], name=known)
    raise SettingsError(f"HF_TASK={name}: there is no such task; choose one of {', '.join(sorted(TASKS))}")
