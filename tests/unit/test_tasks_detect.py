"""The task of a directory follows from its architecture, for every class that transformers can load."""

import json
import os
from collections import defaultdict

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers.models.auto import modeling_auto
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from hfserve.errors import LoadError
from hfserve.tasks.detect import detect, possible
from hfserve.tasks.table import TASKS

BY_TABLE = {
    "AUDIO_CLASSIFICATION": "audio-classification",
    "CAUSAL_LM": "text-generation",
    "CTC": "automatic-speech-recognition",
    "DECISION": "decision",
    "DEPTH_ESTIMATION": "depth-estimation",
    "DOCUMENT_QUESTION_ANSWERING": "document-question-answering",
    "IMAGE": "image-feature-extraction",
    "IMAGE_CLASSIFICATION": "image-classification",
    "IMAGE_SEGMENTATION": "image-segmentation",
    "IMAGE_TEXT_TO_TEXT": "image-text-to-text",
    "IMAGE_TO_IMAGE": "image-to-image",
    "INSTANCE_SEGMENTATION": "image-segmentation",
    "KEYPOINT_MATCHING": "keypoint-matching",
    "MASK_GENERATION": "mask-generation",
    "MASKED_LM": "fill-mask",
    "MULTIMODAL_LM": "any-to-any",
    "MULTIPLE_CHOICE": "multiple-choice",
    "OBJECT_DETECTION": "object-detection",
    "QUESTION_ANSWERING": "question-answering",
    "RNNT": "automatic-speech-recognition",
    "SEMANTIC_SEGMENTATION": "image-segmentation",
    "SEQUENCE_CLASSIFICATION": "text-classification",
    "SEQ_TO_SEQ_CAUSAL_LM": "text2text-generation",
    "SPEECH_SEQ_2_SEQ": "automatic-speech-recognition",
    "TABLE_QUESTION_ANSWERING": "table-question-answering",
    "TDT": "automatic-speech-recognition",
    "TEXT_ENCODING": "feature-extraction",
    "TEXT_TO_SPECTROGRAM": "text-to-audio",
    "TEXT_TO_WAVEFORM": "text-to-audio",
    "TOKEN_CLASSIFICATION": "token-classification",
    "UNIVERSAL_SEGMENTATION": "image-segmentation",
    "VIDEO_CLASSIFICATION": "video-classification",
    "VISUAL_QUESTION_ANSWERING": "visual-question-answering",
    "ZERO_SHOT_IMAGE_CLASSIFICATION": "zero-shot-image-classification",
    "ZERO_SHOT_OBJECT_DETECTION": "zero-shot-object-detection",
}
UNSERVED = {
    "AUDIO_FRAME_CLASSIFICATION", "AUDIO_TOKENIZATION", "AUDIO_XVECTOR", "BACKBONE", "CAUSAL_IMAGE_MODELING",
    "IMAGE_MATTING", "KEYPOINT_DETECTION", "MASKED_IMAGE_MODELING", "NEXT_SENTENCE_PREDICTION",
    "NORMAL_ESTIMATION", "POINTMAP_ESTIMATION", "POSE_ESTIMATION", "RETRIEVAL", "TABLE_RECOGNITION", "TEXT_RECOGNITION",
    "TIME_SERIES_CLASSIFICATION", "TIME_SERIES_PREDICTION", "TIME_SERIES_REGRESSION",
}  # fmt: skip
ASR, ANY, ITT = "automatic-speech-recognition", "any-to-any", "image-text-to-text"
IN_SEVERAL = {
    "BartForConditionalGeneration": "text2text-generation",
    "Blip2ForConditionalGeneration": ITT,
    "FunAsrNanoForConditionalGeneration": ASR,
    "FuyuForCausalLM": ITT,
    "Gemma3ForConditionalGeneration": ITT,
    "Gemma3nForConditionalGeneration": ITT,
    "Gemma4ForConditionalGeneration": ITT,
    "Gemma4UnifiedForConditionalGeneration": ITT,
    "GitForCausalLM": ITT,
    "GlmAsrForConditionalGeneration": ANY,
    "GotOcr2ForConditionalGeneration": ITT,
    "GraniteSpeechForConditionalGeneration": ASR,
    "GraniteSpeechPlusForConditionalGeneration": ASR,
    "KyutaiSpeechToTextForConditionalGeneration": ASR,
    "LayoutLMv2ForQuestionAnswering": "document-question-answering",
    "LayoutLMv3ForQuestionAnswering": "document-question-answering",
    "MBartForConditionalGeneration": "translation",
    "MossTranscribeDiarizeForConditionalGeneration": ANY,
    "MvpForConditionalGeneration": "text2text-generation",
    "Nemotron3_5TranscribeForConditionalGeneration": ANY,
    "Phi4MultimodalForCausalLM": ANY,
    "Qwen2AudioForConditionalGeneration": ANY,
    "Qwen2_5OmniForConditionalGeneration": ANY,
    "Qwen3ASRForConditionalGeneration": ASR,
    "Qwen3OmniMoeForConditionalGeneration": ANY,
    "T5Gemma2ForConditionalGeneration": ITT,
    "VibeVoiceAsrForConditionalGeneration": ASR,
    "VibeVoiceForConditionalGeneration": "text-to-audio",
    "VoxtralForConditionalGeneration": ASR,
    "VoxtralRealtimeForConditionalGeneration": ASR,
    "XLMWithLMHeadModel": "fill-mask",
}
AGAINST_ITS_TABLE = {
    "AudioFlamingo3ForConditionalGeneration": ANY,
    "DiaForConditionalGeneration": "text-to-audio",
    "EvollaForProteinText2Text": None,
    "Mistral4ForCausalLM": "text-generation",
    "MusicFlamingoForConditionalGeneration": ANY,
    "PI0ForConditionalGeneration": None,
    "Pop2PianoForConditionalGeneration": None,
    "VisionEncoderDecoderModel": "image-to-text",
}
TRANSLATE = {"fsmt", "m2m_100", "marian", "mbart", "nllb-moe", "seamless_m4t", "seamless_m4t_v2"}
READS_BOTH = {"LxmertModel", "VisualBertModel", "Glm46VModel", "Kosmos2_5Model"}


def _classes():
    """Every class of every table of transformers: the tables that hold it, and the types of model it is for."""
    tables, types = defaultdict(set), {}
    for variable, rows in vars(modeling_auto).items():
        if not variable.startswith("MODEL_") or not variable.endswith("_NAMES"):
            continue
        table = variable.removeprefix("MODEL_FOR_").removesuffix("_NAMES").removesuffix("_MAPPING")
        for kind, names in rows.items():
            for name in [names] if isinstance(names, str) else names:
                tables[name].add(table)
                types.setdefault(name, kind)
    return tables, types


def _folder(path, architecture, *files, **config):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"architectures": [architecture], **config}))
    for file in files:
        (path / file).write_text("{}")
    return path


def _found(path):
    try:
        return detect(path)
    except LoadError:
        return None


def test_every_class_with_a_head_has_its_task(tmp_path):
    tables, types = _classes()
    wrong, single, several, unserved = {}, 0, set(), 0
    for name, found in tables.items():
        of_tasks = found - {"MODEL", "PRETRAINING"} - UNSERVED
        if not of_tasks and not found & UNSERVED:
            continue
        if name in AGAINST_ITS_TABLE:
            expected = AGAINST_ITS_TABLE[name]
        elif not of_tasks:
            expected, unserved = None, unserved + 1
        elif len({BY_TABLE[table] for table in of_tasks}) == 1 or of_tasks == {"IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"}:
            expected, single = BY_TABLE[min(of_tasks)], single + 1
        else:
            expected = IN_SEVERAL[name]
            several.add(name)
        if expected == "text2text-generation" and types[name] in TRANSLATE:
            expected = "translation"
        got = _found(_folder(tmp_path / "model", name, model_type=types[name]))
        if got != expected:
            wrong[name] = (got, expected)
    assert wrong == {}
    assert several == set(IN_SEVERAL)
    assert (single, unserved) == (926, 82)


def test_every_bare_model_is_told_by_what_it_reads(tmp_path):
    tables, types = _classes()
    wrong, counts = {}, defaultdict(int)
    for name, found in tables.items():
        if found != {"MODEL"}:
            continue
        kind = types[name]
        text = kind in TOKENIZER_MAPPING_NAMES or kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        image = kind in IMAGE_PROCESSOR_MAPPING_NAMES
        mixed = kind in FEATURE_EXTRACTOR_MAPPING_NAMES or kind in PROCESSOR_MAPPING_NAMES
        if name in READS_BOTH or mixed or text == image:
            counts["unchecked"] += 1
            assert _found(_folder(tmp_path / "model", name)) in {None, *TASKS}
            continue
        expected = "feature-extraction" if text else "image-feature-extraction"
        counts[expected] += 1
        if (got := _found(_folder(tmp_path / "model", name))) != expected:
            wrong[name] = (got, expected)
    assert wrong == {}
    assert dict(counts) == {"feature-extraction": 179, "image-feature-extraction": 22, "unchecked": 277}


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", "feature-extraction"),
        ("ModernBertModel", "feature-extraction"),
        ("LlamaModel", "feature-extraction"),
        ("T5EncoderModel", "feature-extraction"),
        ("CLIPTextModel", "feature-extraction"),
        ("ViTModel", "image-feature-extraction"),
        ("CLIPVisionModel", "image-feature-extraction"),
        ("Dinov2Model", "image-feature-extraction"),
        ("ClapModel", "zero-shot-audio-classification"),
        ("CLIPModel", "zero-shot-image-classification"),
        ("SamModel", "mask-generation"),
        ("Sam2VideoModel", "mask-generation"),
        ("TapasForQuestionAnswering", "table-question-answering"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("ParakeetForTDT", "automatic-speech-recognition"),
        ("BarkModel", "text-to-audio"),
        ("ViltForQuestionAnswering", "visual-question-answering"),
        ("BlipForQuestionAnswering", "visual-question-answering"),
        ("Swin2SRForImageSuperResolution", "image-to-image"),
        ("VisionEncoderDecoderModel", "image-to-text"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("MyOwnForMultipleChoice", "multiple-choice"),
        ("MyOwnForCausalLM", "text-generation"),
        ("MyOwnForSequenceClassification", "text-classification"),
    ],
)
def test_well_known_models(tmp_path, architecture, task):
    assert detect(_folder(tmp_path, architecture)) == task
    assert possible(architecture)[0] == task


@pytest.mark.parametrize(
    "architecture", ["Wav2Vec2Model", "HubertModel", "WhisperModel", "EncodecModel", "InformerModel"]
)
def test_bare_models_of_sound_and_time_have_no_task(tmp_path, architecture):
    assert possible(architecture) == []
    with pytest.raises(LoadError, match=f"{architecture} .* belongs to no task that is known here; choose with"):
        detect(_folder(tmp_path, architecture))


def test_files_decide_for_a_model_that_reads_both(tmp_path):
    assert possible("LayoutLMv3Model") == ["feature-extraction", "image-feature-extraction"]
    with pytest.raises(LoadError, match="could serve feature-extraction or image-feature-extraction; choose"):
        detect(_folder(tmp_path / "neither", "LayoutLMv3Model"))
    assert detect(_folder(tmp_path / "text", "LayoutLMv3Model", "tokenizer.json")) == "feature-extraction"
    image = _folder(tmp_path / "image", "LayoutLMv3Model", "preprocessor_config.json")
    assert detect(image) == "image-feature-extraction"


def test_a_pretraining_class_names_what_it_could_become(tmp_path):
    assert possible("BertForPreTraining") == ["fill-mask", "feature-extraction"]
    with pytest.raises(LoadError, match=r"BertForPreTraining .* could serve fill-mask or feature-extraction"):
        detect(_folder(tmp_path, "BertForPreTraining"))


@pytest.mark.parametrize(
    ("architecture", "config", "task"),
    [
        ("MarianMTModel", {"model_type": "marian"}, "translation"),
        ("M2M100ForConditionalGeneration", {"model_type": "m2m_100"}, "translation"),
        ("PegasusForConditionalGeneration", {"model_type": "pegasus"}, "text2text-generation"),
        (
            "BartForConditionalGeneration",
            {"task_specific_params": {"summarization": {}}},
            "summarization",
        ),
        ("BartForConditionalGeneration", {"task_specific_params": {"summarization_xsum": {}}}, "summarization"),
        ("MBartForConditionalGeneration", {"task_specific_params": {"translation_en_to_ro": {}}}, "translation"),
        (
            "T5ForConditionalGeneration",
            {"task_specific_params": {"summarization": {}, "translation_en_to_de": {}}},
            "text2text-generation",
        ),
        ("XLMWithLMHeadModel", {"causal": True}, "text-generation"),
        (
            "BertForSequenceClassification",
            {"sentence_transformers": {"version": "5"}, "id2label": {"0": "LABEL_0"}},
            "text-ranking",
        ),
        (
            "XLMRobertaForSequenceClassification",
            {"sbert_ce_default_activation_function": "torch.nn.Sigmoid", "id2label": {"0": "LABEL_0"}},
            "text-ranking",
        ),
        ("BertForSequenceClassification", {"sentence_transformers": {}}, "text-classification"),
        ("BertForSequenceClassification", {"id2label": {"0": "LABEL_0"}}, "text-classification"),
        ("BertForSequenceClassification", {"label2id": {"ENTAILMENT": 0, "neutral": 1}}, "text-classification"),
    ],
)
def test_the_configuration_refines(tmp_path, architecture, config, task):
    assert detect(_folder(tmp_path, architecture, **config)) == task


def test_zero_shot_is_possible_and_has_to_be_asked_for():
    assert possible("BertForSequenceClassification") == ["text-classification", "zero-shot-classification"]


@pytest.mark.parametrize(
    ("about", "task"),
    [({}, "feature-extraction"), ({"model_type": "SparseEncoder"}, "feature-extraction"),
     ({"model_type": "CrossEncoder"}, "text-classification")],
)  # fmt: skip
def test_a_sentence_transformers_folder_says_what_it_is(tmp_path, about, task):
    _folder(tmp_path, "Qwen3ForCausalLM", "modules.json")
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(about))
    assert detect(tmp_path) == task


def test_a_cross_encoder_with_one_label_ranks(tmp_path):
    _folder(tmp_path, "BertForSequenceClassification", "modules.json", id2label={"0": "LABEL_0"})
    about = tmp_path / "config_sentence_transformers.json"
    about.write_text(json.dumps({"model_type": "CrossEncoder"}))
    assert detect(tmp_path) == "text-ranking"
    about.write_text(json.dumps({"model_type": "SentenceTransformer"}))
    assert detect(tmp_path) == "feature-extraction"


def test_tapex_is_told_by_its_tokenizer(tmp_path):
    _folder(tmp_path, "BartForConditionalGeneration", model_type="bart")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TapexTokenizer"}))
    assert detect(tmp_path) == "table-question-answering"


def test_a_diffusers_folder_makes_images(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert detect(tmp_path) == "text-to-image" and "text-to-image" in TASKS


def test_a_folder_without_configuration_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(LoadError, match=r"none of config.json, .* and modules.json.*there is weights.bin"):
        detect(tmp_path)
    with pytest.raises(LoadError, match="there is nothing"):
        detect(tmp_path / "absent")


@pytest.mark.parametrize(("text", "why"), [("{", "is not JSON"), ("[]", "no JSON object"), ("{}", "no architecture")])
def test_a_broken_configuration_is_named(tmp_path, text, why):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(LoadError, match=f"config.json.* {why}"):
        detect(tmp_path)
