"""Tiny models with random, repeatable weights, saved as a user saves them: `build("text-classification-bert", path)`.

Every name is a task, and the family of the model where a task has several; `NAMES` lists them and `task_of` tells them
apart. Their tokenizers know every ASCII character and a few words.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, processors
from tokenizers.pre_tokenizers import ByteLevel, Metaspace

from hfserve.tasks.table import TASKS

WORDS = [
    "the", "a", "of", "was", "is", "in", "not", "good", "bad", "food", "service", "price", "taste", "london", "paris",
]  # fmt: skip
LETTERS = [chr(code) for code in range(33, 127)]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 96, "initializer_range": 0.3,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
PARTS = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}assistant:"
)


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


SENTIMENT = _labels("NEGATIVE", "POSITIVE")


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name into a directory, and return the directory."""
    return save(_BUILDERS[name], path)


def save(parts: Callable[[], tuple[Any, ...]], path: Path) -> Path:
    """Save what is built, from the same seed every time, into a directory, and return the directory."""
    torch.manual_seed(0)
    hf.logging.disable_progress_bar()
    for part in parts():
        part.save_pretrained(path)
    return path


def task_of(name: str) -> str:
    """The task of a name: `text-generation-gpt2` is text-generation."""
    return max((task for task in TASKS if name.startswith(task)), key=len)


# Tokenizers


def _wordpiece(**settings: Any) -> Any:
    lower = [letter for letter in LETTERS if not letter.isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *lower, *WORDS, *(f"##{letter}" for letter in lower)]
    return hf.BertTokenizer(vocab=_numbered(pieces), model_max_length=96, **settings)


def _bytes(*special: str) -> dict[str, int]:
    return _numbered([*special, *sorted(ByteLevel.alphabet())])


def _roberta() -> Any:
    vocab = _bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return hf.RobertaTokenizer(vocab=vocab, merges=[], model_max_length=94)


def _gpt2() -> Any:
    return hf.GPT2Tokenizer(vocab=_bytes("<|endoftext|>"), merges=[], model_max_length=96, pad_token="<|endoftext|>")


def _clip() -> Any:
    letters = _bytes("<|startoftext|>", "<|endoftext|>")
    vocab = _numbered([*letters, *(f"{letter}</w>" for letter in letters)])
    return hf.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=48)


def _unigram(kind: Any, *special: str) -> Any:
    pieces = ["▁", *LETTERS, *(f"▁{word}" for word in WORDS)]
    scored = [
        *((piece, 0.0) for piece in special),
        *((piece, -float(len(pieces) - i)) for i, piece in enumerate(pieces)),
    ]
    return kind(vocab=scored, model_max_length=94)


def _albert() -> Any:
    return _unigram(hf.AlbertTokenizer, "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


def _xlmr() -> Any:
    return _unigram(hf.XLMRobertaTokenizer, "<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _deberta() -> Any:
    return _unigram(hf.DebertaV2Tokenizer, "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _modernbert() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(vocab=_bytes(*special), merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=96, model_input_names=["input_ids", "attention_mask"], **names
    )


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


# Text


def _text(head: str, config: Any, tokenizer: Any, **changes: Any) -> Callable[[], tuple[Any, Any]]:
    def parts() -> tuple[Any, Any]:
        words = tokenizer()
        sizes = {**SIZES, "vocab_size": len(words), "pad_token_id": words.pad_token_id, **changes}
        return getattr(hf, head)(config(**sizes)).eval(), words

    return parts


_DISTIL = {
    "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 96, "initializer_range": 0.3,
}  # fmt: skip
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96, "bos_token_id": 0, "eos_token_id": 0}
_BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96, "init_std": 0.3, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
_NLI = _labels("entailment", "neutral", "contradiction")
_NER = _labels("O", "B-PER", "I-PER", "B-LOC")


class _Sentences:
    """What sentence-transformers saves beside a model: mean pooling, a layer, vectors of length 1, 24 tokens."""

    def save_pretrained(self, path: Path) -> None:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
        modules = [
            {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{kind}"}
            for i, (name, kind) in enumerate(kinds.items())
        ]
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
        for name in kinds:
            (path / name).mkdir(exist_ok=True)
        pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
        (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
        dense = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.Tanh"}
        (path / "2_Dense/config.json").write_text(json.dumps(dense))
        layer = {"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)}
        save_file(layer, path / "2_Dense/model.safetensors")


def _chatty() -> Any:
    words = _gpt2()
    words.chat_template = TEMPLATE
    words.add_tokens(["Yes", "No"])
    return words


# Text to text


def _pieces() -> Any:
    """T5's kind of tokenizer, under the class that every version of transformers reads."""
    pieces = ["▁", *LETTERS, *(f"▁{word}" for word in WORDS), *"éßñжщ漢字"]
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(i)) for i, piece in enumerate(pieces, 1))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _generic(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _byte_pairs() -> Any:
    """BART's kind of tokenizer, likewise."""
    tokenizer = Tokenizer(models.BPE(vocab=_bytes("<s>", "<pad>", "</s>", "<unk>"), merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return _generic(tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _generic(tokenizer: Any, **special: str) -> Any:
    names = ["input_ids", "attention_mask"]
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=96, model_input_names=names, **special
    )


def _nllb() -> Any:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS]
    languages = ["eng_Latn", "fra_Latn", "deu_Latn"]
    return hf.NllbTokenizer(
        vocab=_numbered([*pieces, *languages, "<mask>"]), merges=[], model_max_length=96,
        additional_special_tokens=languages,
    )  # fmt: skip


def _t5() -> tuple[Any, Any]:
    words = _pieces()
    config = hf.T5Config(
        vocab_size=len(words), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, initializer_factor=4.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        task_specific_params={
            "summarization": {"prefix": "summarize: ", "num_beams": 2, "no_repeat_ngram_size": 2, "max_length": 30},
            "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 3, "early_stopping": True},
            "translation_en_to_fr": {"prefix": "translate English to French: "},
        },
    )  # fmt: skip
    model = hf.T5ForConditionalGeneration(config).eval()
    model.generation_config.update(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return model, words


_HALVES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96, "init_std": 0.5,
}  # fmt: skip


def _seq2seq(
    head: str, config: Any, tokenizer: Any, ids: dict[str, int], **generation: Any
) -> Callable[[], tuple[Any, Any]]:
    def parts() -> tuple[Any, Any]:
        words = tokenizer()
        model = getattr(hf, head)(config(**_HALVES, vocab_size=len(words), **ids)).eval()
        model.generation_config.update(**ids, **generation)
        return model, words

    return parts


_BART = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
_MARIAN = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


# Images


def _image_processor(kind: str, side: int = 32, **settings: Any) -> Any:
    return getattr(hf, f"{kind}ImageProcessorPil")(size={"height": side, "width": side}, **settings)


def _vit(head: str) -> Callable[[], tuple[Any, Any]]:
    def parts() -> tuple[Any, Any]:
        config = hf.ViTConfig(**SIZES, image_size=32, patch_size=8, **_SEEN)
        return getattr(hf, head)(config).eval(), _image_processor("ViT")

    return parts


_SEEN = _labels("sky", "sea", "sand")


def _yolos() -> tuple[Any, Any]:
    config = hf.YolosConfig(**SIZES, image_size=[32, 32], patch_size=8, num_detection_tokens=6, **_SEEN)
    size = {"shortest_edge": 32, "longest_edge": 32}
    return hf.YolosForObjectDetection(config).eval(), hf.YolosImageProcessorPil(size=size)


def _segformer() -> tuple[Any, Any]:
    config = hf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, initializer_range=0.3, **_SEEN,
    )  # fmt: skip
    return hf.SegformerForSemanticSegmentation(config).eval(), _image_processor("Segformer")


def _glpn() -> tuple[Any, Any]:
    config = hf.GLPNConfig(
        num_encoder_blocks=4, depths=[1, 1, 1, 1], sr_ratios=[8, 4, 2, 1], hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2], mlp_ratios=[2, 2, 2, 2], decoder_hidden_size=8,
    )  # fmt: skip
    return hf.GLPNForDepthEstimation(config).eval(), hf.GLPNImageProcessorPil()


def _superglue() -> tuple[Any, Any]:
    points = hf.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=8, keypoint_decoder_dim=65, descriptor_decoder_dim=16,
        max_keypoints=8, keypoint_threshold=0.0,
    )  # fmt: skip
    config = hf.SuperGlueConfig(
        keypoint_detector_config=points, hidden_size=16, keypoint_encoder_sizes=[8, 16], num_attention_heads=2,
        gnn_layers_types=["self", "cross"], sinkhorn_iterations=5, matching_threshold=0.0,
    )  # fmt: skip
    return hf.SuperGlueForKeypointMatching(config).eval(), _image_processor("SuperGlue", 48)


def _clip_model() -> tuple[Any, ...]:
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    words, config = _paired(hf.CLIPConfig)
    return hf.CLIPModel(config).eval(), hf.CLIPProcessor(images, words)


def _owlvit() -> tuple[Any, ...]:
    words, config = _paired(hf.OwlViTConfig)
    return hf.OwlViTForObjectDetection(config).eval(), hf.OwlViTProcessor(_image_processor("OwlViT"), words)


def _paired(config: Any) -> tuple[Any, Any]:
    words = _clip()
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 48, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    return words, config(text_config={**text, "pad_token_id": 1}, vision_config=vision, projection_dim=32)


def _sam() -> tuple[Any, Any]:
    vision = {
        **SIZES,
        "image_size": 32,
        "patch_size": 8,
        "output_channels": 16,
        "window_size": 2,
        "mlp_dim": 32,
        "num_pos_feats": 8,
    }
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "image_embedding_size": 4, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    config = hf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    images = hf.SamImageProcessorPil(size={"longest_edge": 32}, pad_size={"height": 32, "width": 32})
    return hf.SamModel(config).eval(), images


def _git() -> tuple[Any, ...]:
    words = _wordpiece(model_input_names=["input_ids", "attention_mask"])
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    config = hf.GitConfig(
        **SIZES, vocab_size=len(words), vision_config=vision, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return hf.GitForCausalLM(config).eval(), hf.GitProcessor(images, words)


def _llava() -> tuple[Any, ...]:
    words = _gpt2()
    words.add_tokens(["<image>"], special_tokens=True)
    vision = hf.CLIPVisionConfig(**SIZES, image_size=32, patch_size=8)
    text = hf.LlamaConfig(**SIZES, vocab_size=len(words), bos_token_id=0, eos_token_id=0)
    place = words.convert_tokens_to_ids("<image>")
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=place)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    reading = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    model = hf.LlavaForConditionalGeneration(config).eval()
    return model, hf.LlavaProcessor(images, words, chat_template=PARTS, **reading)


def _videomae() -> tuple[Any, Any]:
    config = hf.VideoMAEConfig(**SIZES, image_size=32, patch_size=8, num_frames=4, **_SEEN)
    images = hf.VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return hf.VideoMAEForVideoClassification(config).eval(), images


# Sound


def _wav2vec2(head: str) -> Callable[[], tuple[Any, ...]]:
    def parts() -> tuple[Any, ...]:
        letters = _numbered(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"])
        config = hf.Wav2Vec2Config(
            **SIZES, vocab_size=len(letters), conv_dim=(16, 16), conv_kernel=(10, 8), conv_stride=(20, 16),
            num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, pad_token_id=0,
            classifier_proj_size=16, **_labels("speech", "music"),
        )  # fmt: skip
        config.vocab_size = len(letters)
        hearing = hf.Wav2Vec2FeatureExtractor(return_attention_mask=False)
        model = getattr(hf, head)(config).eval()
        return (model, hearing, _spelling(letters)) if head.endswith("CTC") else (model, hearing)

    return parts


def _spelling(letters: dict[str, int]) -> Any:
    return _with_file(hf.Wav2Vec2CTCTokenizer, letters)


def _with_file(kind: Any, vocab: dict[str, int], **settings: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps(vocab))
        return kind(str(file), **settings)


def _whisper() -> tuple[Any, ...]:
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    words = hf.WhisperTokenizer(vocab=_bytes(*special), merges=[], unk_token="<|endoftext|>")
    config = hf.WhisperConfig(
        vocab_size=len(words), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, max_source_positions=1500,
        max_target_positions=32, decoder_start_token_id=1, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config).eval()
    model.generation_config.update(max_new_tokens=4, num_beams=1)
    return model, hf.WhisperFeatureExtractor(), words


def _qwen2_audio() -> tuple[Any, ...]:
    words = hf.Qwen2Tokenizer(vocab=_bytes("<|endoftext|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"), merges=[])
    audio = {
        "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 128,
        "max_source_positions": 1500,
    }  # fmt: skip
    text = {
        **SIZES, "model_type": "qwen2", "vocab_size": len(words), "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }  # fmt: skip
    config = hf.Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=1)
    model = hf.Qwen2AudioForConditionalGeneration(config).eval()
    model.generation_config.update(max_new_tokens=4, eos_token_id=0, pad_token_id=0)
    return model, hf.Qwen2AudioProcessor(hf.WhisperFeatureExtractor(feature_size=128), words)


def _clap() -> tuple[Any, ...]:
    words = _roberta()
    text = {**SIZES, "vocab_size": len(words), "pad_token_id": 1}
    audio = {
        "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
        "num_mel_bins": 64, "spec_size": 256, "window_size": 8, "patch_size": 4, "patch_stride": [4, 4],
    }  # fmt: skip
    config = hf.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    hearing = hf.ClapFeatureExtractor(sampling_rate=48_000, max_length_s=1, truncation="rand_trunc")
    return hf.ClapModel(config).eval(), hf.ClapProcessor(hearing, words)


def _vits() -> tuple[Any, ...]:
    letters = _numbered(["<pad>", *"abcdefghijklmnopqrstuvwxyz' ", "<unk>"])
    config = hf.VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, posterior_encoder_num_wavenet_layers=2, prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=2, wavenet_kernel_size=3, duration_predictor_num_flows=1,
        duration_predictor_flow_bins=4, duration_predictor_filter_channels=16, duration_predictor_kernel_size=3,
        depth_separable_num_layers=1, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], noise_scale=0.0, noise_scale_duration=0.0,
        sampling_rate=16_000,
    )  # fmt: skip
    return hf.VitsModel(config).eval(), _with_file(hf.VitsTokenizer, letters, phonemize=False, normalize=True)


# Documents and tables


def _tapas() -> tuple[Any, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", *_wordpiece().get_vocab()]))
        words = hf.TapasTokenizer(str(file), model_max_length=96)
    config = hf.TapasConfig(**{**SIZES, "vocab_size": len(words)})
    return hf.TapasForQuestionAnswering(config).eval(), words


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "text-classification-bert": _text("BertForSequenceClassification", hf.BertConfig, _wordpiece, **SENTIMENT),
    "text-classification-distilbert": _text(
        "DistilBertForSequenceClassification", hf.DistilBertConfig, _wordpiece, **_DISTIL, **SENTIMENT
    ),
    "text-classification-roberta": _text("RobertaForSequenceClassification", hf.RobertaConfig, _roberta, **SENTIMENT),
    "text-classification-electra": _text(
        "ElectraForSequenceClassification", hf.ElectraConfig, _wordpiece, embedding_size=32, **SENTIMENT
    ),
    "text-classification-albert": _text(
        "AlbertForSequenceClassification", hf.AlbertConfig, _albert, embedding_size=16, **SENTIMENT
    ),
    "text-classification-xlm-roberta": _text(
        "XLMRobertaForSequenceClassification", hf.XLMRobertaConfig, _xlmr, **SENTIMENT
    ),
    "text-classification-deberta-v2": _text(
        "DebertaV2ForSequenceClassification", hf.DebertaV2Config, _deberta, type_vocab_size=0,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16, pooler_hidden_size=32, **SENTIMENT,
    ),
    "text-classification-modernbert": _text(
        "ModernBertForSequenceClassification", hf.ModernBertConfig, _modernbert, cls_token_id=2, bos_token_id=2,
        sep_token_id=3, eos_token_id=3, local_attention=16, global_attn_every_n_layers=2, **SENTIMENT,
    ),
    "text-classification-multi-label": _text(
        "BertForSequenceClassification", hf.BertConfig, _wordpiece,
        **_labels("food", "service", "price"), problem_type="multi_label_classification",
    ),
    "text-classification-regression": _text(
        "BertForSequenceClassification", hf.BertConfig, _wordpiece, num_labels=1, problem_type="regression"
    ),
    "token-classification": _text("BertForTokenClassification", hf.BertConfig, _wordpiece, **_NER),
    "token-classification-roberta": _text("RobertaForTokenClassification", hf.RobertaConfig, _roberta, **_NER),
    "token-classification-xlm-roberta": _text("XLMRobertaForTokenClassification", hf.XLMRobertaConfig, _xlmr, **_NER),
    "question-answering": _text("BertForQuestionAnswering", hf.BertConfig, _wordpiece),
    "question-answering-roberta": _text("RobertaForQuestionAnswering", hf.RobertaConfig, _roberta),
    "fill-mask": _text("BertForMaskedLM", hf.BertConfig, _wordpiece),
    "fill-mask-roberta": _text("RobertaForMaskedLM", hf.RobertaConfig, _roberta),
    "fill-mask-albert": _text("AlbertForMaskedLM", hf.AlbertConfig, _albert, embedding_size=16),
    "feature-extraction": _text("BertModel", hf.BertConfig, _wordpiece),
    "feature-extraction-gpt2": _text("GPT2Model", hf.GPT2Config, _gpt2, **_GPT2),
    "feature-extraction-roberta": _text("RobertaModel", hf.RobertaConfig, _roberta),
    "feature-extraction-sentences": lambda: (*_text("BertModel", hf.BertConfig, _wordpiece)(), _Sentences()),
    "zero-shot-classification": _text("BertForSequenceClassification", hf.BertConfig, _wordpiece, **_NLI),
    "zero-shot-classification-roberta": _text(
        "RobertaForSequenceClassification", hf.RobertaConfig, _roberta, **_labels("contradiction", "neutral", "entails")
    ),
    "zero-shot-classification-bart": _text(
        "BartForSequenceClassification", hf.BartConfig, _roberta, **_BART, **_labels("no", "maybe", "yes")
    ),
    "text-generation-gpt2": _text("GPT2LMHeadModel", hf.GPT2Config, _gpt2, **_GPT2),
    "text-generation-llama": _text(
        "LlamaForCausalLM", hf.LlamaConfig, _chatty, num_key_value_heads=2, bos_token_id=0, eos_token_id=0
    ),
    "text2text-generation-t5": _t5,
    "summarization-bart": _seq2seq(
        "BartForConditionalGeneration", hf.BartConfig, _byte_pairs, _BART,
        max_length=24, min_length=6, num_beams=2, no_repeat_ngram_size=3, length_penalty=2.0, forced_eos_token_id=2,
    ),
    "translation-marian": _seq2seq(
        "MarianMTModel", hf.MarianConfig, _pieces, _MARIAN, max_length=40, num_beams=6, bad_words_ids=[[0]],
        forced_eos_token_id=1,
    ),
    "translation-nllb": _seq2seq("M2M100ForConditionalGeneration", hf.M2M100Config, _nllb, _BART, max_length=30),
    "decision": _text("LlamaForCausalLM", hf.LlamaConfig, _chatty, max_position_embeddings=512),
    "document-question-answering": _text("LayoutLMForQuestionAnswering", hf.LayoutLMConfig, _wordpiece),
    "table-question-answering": _tapas,
    "image-classification": _vit("ViTForImageClassification"),
    "image-feature-extraction": _vit("ViTModel"),
    "object-detection": _yolos,
    "image-segmentation": _segformer,
    "depth-estimation": _glpn,
    "keypoint-matching": _superglue,
    "image-text-to-text-git": _git,
    "image-text-to-text-llava": _llava,
    "video-classification": _videomae,
    "zero-shot-image-classification": _clip_model,
    "zero-shot-object-detection": _owlvit,
    "audio-classification": _wav2vec2("Wav2Vec2ForSequenceClassification"),
    "automatic-speech-recognition": _wav2vec2("Wav2Vec2ForCTC"),
    "automatic-speech-recognition-whisper": _whisper,
    "any-to-any": _qwen2_audio,
    "mask-generation": _sam,
    "zero-shot-audio-classification": _clap,
    "text-to-audio": _vits,
}  # fmt: skip
NAMES = tuple(_BUILDERS)
