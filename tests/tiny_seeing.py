"""Tiny models that write of pictures, of the families whose prompts reach the language model each in its own way.

`build("image-text-to-text-qwen2-vl", path)` saves one as a user does; `NAMES` lists them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as hf

import tiny

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "assistant:"
)
TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "max_position_embeddings": 256, "initializer_range": 0.3, "bos_token_id": 0,
    "eos_token_id": 0, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0},
}  # fmt: skip
VISION = {"num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "initializer_range": 0.3}
VISION_2 = {**VISION, "depth": 1, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
VISION_3 = {
    **VISION, "depth": 2, "hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 32,
    "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16,
}  # fmt: skip


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name into a directory, and return the directory."""
    return tiny.save(_BUILDERS[name], path)


class _Reader:
    """What a user finds beside such a model: its processor would want torchvision to be made, for films."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def save_pretrained(self, path: Path) -> None:
        (path / "processor_config.json").write_text(json.dumps({"processor_class": self._kind}))
        (path / "chat_template.jinja").write_text(TEMPLATE)


def _qwen(family: str, vision: dict[str, Any]) -> Callable[[], tuple[Any, ...]]:
    def parts() -> tuple[Any, ...]:
        words = tiny._gpt2()
        words.add_tokens(list(MARKS), special_tokens=True)
        places = [words.convert_tokens_to_ids(mark) for mark in MARKS]
        names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        config = getattr(hf, f"{family}Config")(
            text_config={**TEXT, "vocab_size": len(words)},
            vision_config=vision,
            **dict(zip(names, places, strict=True)),
        )
        images = hf.Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=64, max_pixels=1024
        )
        model = getattr(hf, f"{family}ForConditionalGeneration")(config).eval()
        return model, images, words, _Reader(f"{family}Processor")

    return parts


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "image-text-to-text-qwen2-vl": _qwen("Qwen2VL", VISION_2),
    "image-text-to-text-qwen3-vl": _qwen("Qwen3VL", VISION_3),
}
NAMES = tuple(_BUILDERS)
