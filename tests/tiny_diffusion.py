"""A tiny latent-diffusion model with random, repeatable weights, saved as diffusers saves Stable Diffusion."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers as hf

import tiny

SIDE = 32
"""Pixels of a side, unless a request says otherwise."""
LONGEST = 24
"""Tokens of a prompt at most."""


def build(path: Path, **changes: Any) -> Path:
    """Save the model into a directory, with other parts where `changes` names them, and return the directory."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(**{**_parts(), **changes}, requires_safety_checker=False)
    pipe.save_pretrained(path)
    return path


def _parts() -> dict[str, Any]:
    words = tiny._clip()
    words.model_max_length = LONGEST
    return {
        "vae": _decoder(), "unet": _denoiser(), "text_encoder": _reader(words), "tokenizer": words,
        "scheduler": _scheduler(), "safety_checker": None, "feature_extractor": None,
    }  # fmt: skip


def _decoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _denoiser() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def _reader(words: Any) -> Any:
    config = hf.CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LONGEST, projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return hf.CLIPTextModel(config).eval()


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
