"""Tiny models that read pictures, for the tasks that transformers 5 has no pipelines for; as tests/tiny.py makes them.

Their tokenizers and image processors are saved one by one, so that transformers 4 reads them too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import tiny

SIDE = {"image_size": 32, "patch_size": 8}
ANSWERS = tiny._labels("yes", "no", "two", "red", "a dog")


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name into a directory, and return the directory."""
    return tiny.save(_BUILDERS[name], path)


def task_of(name: str) -> str:
    """The task of a name: `image-to-text-git` is image-to-text."""
    return name.rpartition("-")[0]


def _words() -> Any:
    return tiny._wordpiece(model_input_names=["input_ids", "attention_mask"])


def _vilt() -> tuple[Any, ...]:
    words = tiny._wordpiece()
    config = hf.ViltConfig(
        **{**tiny.SIZES, "max_position_embeddings": 24}, **SIDE, vocab_size=len(words), max_image_length=-1,
        modality_type_vocab_size=2, **ANSWERS,
    )  # fmt: skip
    images = hf.ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)
    return hf.ViltForQuestionAnswering(config).eval(), images, words


def _blip(head: str) -> Callable[[], tuple[Any, ...]]:
    def parts() -> tuple[Any, ...]:
        words = _words()
        text = {
            **tiny.SIZES, "vocab_size": len(words), "encoder_hidden_size": 32, "bos_token_id": 2, "eos_token_id": 3,
            "sep_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 300, "projection_dim": 32,
        }  # fmt: skip
        config = hf.BlipConfig(
            text_config=text, vision_config={**tiny.SIZES, **SIDE, "projection_dim": 32}, projection_dim=32,
            image_text_hidden_size=32,
        )  # fmt: skip
        return getattr(hf, head)(config).eval(), tiny._image_processor("Blip"), words

    return parts


def _encoder_decoder(encoder: Any, decoder: Any, images: Any, words: Any, **ids: int) -> tuple[Any, ...]:
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = hf.VisionEncoderDecoderModel(config).eval()
    model.config.update(ids)
    model.generation_config.update(**ids)
    return model, images, words


def _vit_gpt2() -> tuple[Any, ...]:
    words = tiny._gpt2()
    decoder = hf.GPT2Config(**{**tiny._GPT2, "n_positions": 300}, vocab_size=len(words), add_cross_attention=True)
    encoder = hf.ViTConfig(**tiny.SIZES, **SIDE)
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 0}
    return _encoder_decoder(encoder, decoder, tiny._image_processor("ViT"), words, **ids)


def _trocr() -> tuple[Any, ...]:
    words = tiny._byte_pairs()
    decoder = hf.TrOCRConfig(
        vocab_size=len(words), d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_position_embeddings=300, init_std=0.5, cross_attention_hidden_size=32,
    )  # fmt: skip
    encoder = hf.DeiTConfig(**tiny.SIZES, **SIDE)
    images = hf.DeiTImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    return _encoder_decoder(encoder, decoder, images, words, decoder_start_token_id=2, pad_token_id=1, eos_token_id=2)


def _donut() -> tuple[Any, ...]:
    words = tiny._byte_pairs()
    encoder = hf.DonutSwinConfig(
        image_size=[32, 48], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4, hidden_size=32,
        initializer_range=0.3,
    )  # fmt: skip
    decoder = hf.MBartConfig(
        vocab_size=len(words), d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=64,
        encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, max_position_embeddings=300, init_std=0.5,
        is_decoder=True, is_encoder_decoder=False, add_cross_attention=True, add_final_layer_norm=True,
    )  # fmt: skip
    images = hf.DonutImageProcessorPil(size={"height": 32, "width": 48})
    return _encoder_decoder(encoder, decoder, images, words, decoder_start_token_id=0, pad_token_id=1, eos_token_id=2)


def _git() -> tuple[Any, ...]:
    words = _words()
    config = hf.GitConfig(
        **tiny.SIZES, vocab_size=len(words), vision_config={**tiny.SIZES, **SIDE}, bos_token_id=2, eos_token_id=3,
        pad_token_id=0,
    )  # fmt: skip
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = hf.GitForCausalLM(config).eval()
    model.generation_config.update(max_length=24)
    return model, images, words


def _pix2struct() -> tuple[Any, ...]:
    words = tiny._pieces()
    text = {
        "vocab_size": len(words), "hidden_size": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "initializer_factor": 4.0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "patch_embed_hidden_size": 3 * 16, "d_kv": 16, "d_ff": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "initializer_factor": 4.0, "seq_len": 64,
    }  # fmt: skip
    config = hf.Pix2StructConfig(text_config=text, vision_config=vision)
    model = hf.Pix2StructForConditionalGeneration(config).eval()
    model.generation_config.update(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    images = hf.Pix2StructImageProcessorPil(max_patches=24, patch_size={"height": 4, "width": 4})
    return model, images, words


def _swin2sr() -> tuple[Any, ...]:
    config = hf.Swin2SRConfig(
        image_size=16, patch_size=1, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, mlp_ratio=2.0,
        upscale=2, img_range=1.0, upsampler="pixelshuffle", initializer_range=0.1,
    )  # fmt: skip
    model = hf.Swin2SRForImageSuperResolution(config).eval()
    with torch.no_grad():
        for weights in model.upsample.final_convolution.parameters():
            weights.mul_(0.1)
    return model, hf.Swin2SRImageProcessorPil(size_divisor=4)


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "visual-question-answering-vilt": _vilt,
    "visual-question-answering-blip": _blip("BlipForQuestionAnswering"),
    "image-to-text-gpt2": _vit_gpt2,
    "image-to-text-trocr": _trocr,
    "image-to-text-donut": _donut,
    "image-to-text-blip": _blip("BlipForConditionalGeneration"),
    "image-to-text-git": _git,
    "image-to-text-pix2struct": _pix2struct,
    "image-to-image-swin2sr": _swin2sr,
}
NAMES = tuple(_BUILDERS)
