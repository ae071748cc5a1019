"""More tiny models for the tasks that transformers' pipelines run: other families, and what those of tiny.py leave out.

`build("mask-generation-sam", path)` saves one as a user does; `NAMES` lists them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import tiny

SIZES, SEEN = tiny.SIZES, tiny._labels("ciel 🌤", "海", "Sand & Ähre")
ALIGNED = [[0, 0], [0, 1]]
TIMES = 1501
"""Whisper's tokens of time: every fiftieth of thirty seconds."""


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name into a directory, and return the directory."""
    return tiny.save(_BUILDERS[name], path)


# Images


def _sam() -> tuple[Any, Any]:
    """Its masks differ from point to point, as those of tiny.py do not."""
    vision = {
        **SIZES, "image_size": 64, "patch_size": 8, "output_channels": 64, "window_size": 2, "mlp_dim": 32,
        "num_pos_feats": 32,
    }  # fmt: skip
    prompt = {"hidden_size": 64, "image_size": 64, "patch_size": 8, "image_embedding_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 64, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    model = hf.SamModel(hf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.mask_decoder.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        for parameter in model.prompt_encoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model.eval(), hf.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})


def _backbone() -> Any:
    return hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"], initializer_range=0.3,
    )  # fmt: skip


def _mask2former() -> tuple[Any, Any]:
    config = hf.Mask2FormerConfig(
        backbone_config=_backbone(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=5, init_std=0.5,
        **SEEN,
    )  # fmt: skip
    images = hf.Mask2FormerImageProcessorPil(size={"height": 32, "width": 32}, num_labels=3)
    return _bold(hf.Mask2FormerForUniversalSegmentation(config)), images


def _maskformer() -> tuple[Any, Any]:
    decoder = hf.DetrConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5, init_std=0.5,
    )  # fmt: skip
    config = hf.MaskFormerConfig(
        backbone_config=_backbone(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, init_std=0.5,
        **SEEN,
    )  # fmt: skip
    images = hf.MaskFormerImageProcessorPil(size={"height": 32, "width": 32}, num_labels=3)
    return _bold(hf.MaskFormerForInstanceSegmentation(config)), images


def _bold(model: Any) -> Any:
    """A model that is sure of some class for each of its queries."""
    with torch.no_grad():
        model.class_predictor.weight.mul_(60)
    return model.eval()


def _dpt() -> tuple[Any, Any]:
    config = hf.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        initializer_range=0.3,
    )  # fmt: skip
    images = hf.DPTImageProcessorPil(size={"height": 32, "width": 32})
    model = hf.DPTForDepthEstimation(config).eval()
    with torch.no_grad():
        model.head.head[-2].bias.add_(2)  # behind it nothing is less than 0
    return model, images


def _siglip() -> tuple[Any, Any]:
    words = tiny._byte_pairs()
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 96, "pad_token_id": 1}
    config = hf.SiglipConfig(text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 8})
    images = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return hf.SiglipModel(config).eval(), hf.SiglipProcessor(images, words)


def _owlvit() -> tuple[Any, Any]:
    """A text whose first token is 0 is none to OWL-ViT, and so are all texts of tiny.py."""
    words = _words_from_one()
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 48, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    config = hf.OwlViTConfig(text_config={**text, "pad_token_id": 0}, vision_config=vision, projection_dim=32)
    return hf.OwlViTForObjectDetection(config).eval(), hf.OwlViTProcessor(tiny._image_processor("OwlViT"), words)


def _words_from_one() -> Any:
    letters = tiny._bytes("<pad>", "<|startoftext|>", "<|endoftext|>")
    vocab = tiny._numbered([*letters, *(f"{letter}</w>" for letter in letters)])
    return hf.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=48, pad_token="<pad>")


# Documents


def _donut() -> tuple[Any, ...]:
    encoder = hf.DonutSwinConfig(
        image_size=[32, 48], patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    words = tiny._byte_pairs()
    words.add_tokens(["<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>"], special_tokens=True)
    decoder = hf.MBartConfig(
        vocab_size=len(words), d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        is_decoder=True, is_encoder_decoder=False, add_cross_attention=True, max_position_embeddings=64, init_std=0.5,
        scale_embedding=True, add_final_layer_norm=True,
    )  # fmt: skip
    ids = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0, "bos_token_id": 0}
    config = hf.VisionEncoderDecoderConfig(encoder=encoder.to_dict(), decoder=decoder.to_dict(), **ids)
    model = hf.VisionEncoderDecoderModel(config).eval()
    model.generation_config.update(**ids, max_length=40)
    images = hf.DonutImageProcessorPil(size={"height": 32, "width": 48}, do_align_long_axis=False)
    return model, hf.DonutProcessor(images, words)


def _layoutlmv3() -> tuple[Any, ...]:
    words = hf.LayoutLMv3Tokenizer(vocab=tiny._bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>"), merges=[])
    words.model_max_length = 90
    config = hf.LayoutLMv3Config(
        **SIZES, vocab_size=len(words), input_size=32, patch_size=8, coordinate_size=6, shape_size=4,
        rel_pos_bins=8, max_2d_position_embeddings=1024, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    images = hf.LayoutLMv3ImageProcessorPil(apply_ocr=False, size={"height": 32, "width": 32})
    return hf.LayoutLMv3ForQuestionAnswering(config).eval(), hf.LayoutLMv3Processor(images, words)


# Sound


def _whisper() -> tuple[Any, ...]:
    """With languages, times and heads that look along the sound."""
    special = [
        "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>", "<|transcribe|>",
        "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
    ]  # fmt: skip
    words = hf.WhisperTokenizer(vocab=tiny._bytes(), merges=[], unk_token="!")
    words.add_tokens(special, special_tokens=True)
    words.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(TIMES)])
    of = words.convert_tokens_to_ids
    ids = {"eos_token_id": of(special[0]), "bos_token_id": of(special[0]), "pad_token_id": of(special[0])}
    config = hf.WhisperConfig(
        vocab_size=len(words), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, max_source_positions=1500,
        max_target_positions=48, decoder_start_token_id=of(special[1]), suppress_tokens=None, init_std=0.3,
        begin_suppress_tokens=None, **ids,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config).eval()
    model.generation_config = hf.GenerationConfig(
        **ids, decoder_start_token_id=of(special[1]), is_multilingual=True, alignment_heads=ALIGNED,
        lang_to_id={"<|en|>": of("<|en|>"), "<|fr|>": of("<|fr|>")}, no_timestamps_token_id=of("<|notimestamps|>"),
        task_to_id={"translate": of("<|translate|>"), "transcribe": of("<|transcribe|>")}, num_beams=1,
        prev_sot_token_id=of("<|startofprev|>"), max_initial_timestamp_index=50, max_length=24,
        suppress_tokens=[of(name) for name in special[1:]], begin_suppress_tokens=[of(special[0])],
    )  # fmt: skip
    return model, hf.WhisperFeatureExtractor(), words


def _qwen2_audio() -> tuple[Any, ...]:
    """That of tiny.py takes the place of a sound in a text for letters."""
    model, processor = tiny._qwen2_audio()
    special = ["<|endoftext|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    processor.tokenizer.add_tokens(special, special_tokens=True)
    return model, processor


def _musicgen() -> tuple[Any, ...]:
    words = tiny._pieces()
    text = hf.T5Config(
        vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, initializer_factor=4.0
    )
    sound = hf.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=16, codebook_dim=16, upsampling_ratios=[4, 2],
        sampling_rate=16_000, target_bandwidths=[16.0], num_residual_layers=1, num_lstm_layers=1, audio_channels=1,
        normalize=False,
    )  # fmt: skip
    decoder = hf.MusicgenDecoderConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, num_codebooks=2,
        max_position_embeddings=64, pad_token_id=16, bos_token_id=16, audio_channels=1, initializer_factor=0.5,
    )  # fmt: skip
    config = hf.MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=sound.to_dict(), decoder=decoder.to_dict())
    model = hf.MusicgenForConditionalGeneration(config).eval()
    ids = {"pad_token_id": 16, "bos_token_id": 16, "decoder_start_token_id": 16}
    model.generation_config.update(**ids, max_length=20, do_sample=False, guidance_scale=3.0)
    hearing = hf.EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return model, hearing, words


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "mask-generation-sam": _sam,
    "image-segmentation-mask2former": _mask2former,
    "image-segmentation-maskformer": _maskformer,
    "depth-estimation-dpt": _dpt,
    "zero-shot-image-classification-siglip": _siglip,
    "zero-shot-object-detection-owlvit": _owlvit,
    "document-question-answering-donut": _donut,
    "document-question-answering-layoutlmv3": _layoutlmv3,
    "automatic-speech-recognition-times": _whisper,
    "any-to-any-audio": _qwen2_audio,
    "text-to-audio-musicgen": _musicgen,
}
NAMES = tuple(_BUILDERS)
