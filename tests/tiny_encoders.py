"""More tiny encoders, one of every kind of attention that packing has to know: `build("mpnet", path)`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

import tiny
from hfserve.runtimes.tokenizing import SAMPLES
from tiny import SENTIMENT, SIZES

_SHORT = {"vocab_size": 104, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_HALVES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96, "init_std": 0.2,
}  # fmt: skip
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "initializer_factor": 4.0}
_LOCAL = {"local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}


def build(name: str, path: Path) -> Path:
    """Save the tiny model of a name, with its tokenizer, into a directory."""
    torch.manual_seed(0)
    hf.logging.disable_progress_bar()
    words = tiny._roberta() if name in _OF_ROBERTA else tiny._wordpiece()
    model = MODELS[name](len(words), words.pad_token_id)
    model.eval().save_pretrained(path)
    words.save_pretrained(path)
    return path


def _classifier(family: str, **changes: Any) -> Callable[[int, int], Any]:
    def made(vocabulary: int, padding: int) -> Any:
        sizes = {**SIZES, **_SHORT, "vocab_size": vocabulary, "pad_token_id": padding, **SENTIMENT, **changes}
        config = getattr(hf, f"{family}Config")(**sizes)
        return getattr(hf, f"{family}ForSequenceClassification")(config)

    return made


def _bare(head: str, config: str, sizes: dict[str, Any], **ids: int) -> Callable[[int, int], Any]:
    def made(vocabulary: int, padding: int) -> Any:
        settings = {**sizes, "vocab_size": vocabulary, "pad_token_id": padding, **ids}
        return getattr(hf, head)(getattr(hf, config)(**settings))

    return made


MODELS: dict[str, Callable[[int, int], Any]] = {
    "mpnet": _classifier("MPNet"),
    "camembert": _classifier("Camembert"),
    "deberta": _classifier("Deberta", **_RELATIVE),
    "deberta-v2": _classifier("DebertaV2", **_RELATIVE, position_buckets=16),
    "deberta-v2-convolution": _classifier("DebertaV2", **_RELATIVE, conv_kernel_size=3, conv_act="gelu"),
    "modernbert-mean": _classifier("ModernBert", **_LOCAL, classifier_pooling="mean"),
    "mobilebert": _classifier("MobileBert", embedding_size=16, intra_bottleneck_size=16),
    "gpt2": _classifier("GPT2", n_embd=32, n_layer=2, n_head=2, n_positions=96),
    "llama": _classifier("Llama", num_key_value_heads=1),
    "mistral": _classifier("Mistral", num_key_value_heads=1, sliding_window=8),
    "t5": _bare("T5EncoderModel", "T5Config", _T5),
    "bart": _bare("BartForSequenceClassification", "BartConfig", _HALVES, eos_token_id=2, decoder_start_token_id=2),
    "qwen2": _bare("Qwen2Model", "Qwen2Config", {**SIZES, "num_key_value_heads": 1}),
    "marian": lambda vocabulary, padding: (
        hf.MarianModel(
            hf.MarianConfig(**_HALVES, vocab_size=vocabulary, pad_token_id=padding, decoder_start_token_id=padding)
        ).encoder
    ),
}
"""A model of each name, given the size of its vocabulary and the id of its padding."""

_OF_ROBERTA = ("mpnet", "camembert", "bart")

BARE = ("t5", "qwen2", "marian")
"""Those without a head: they give a vector of each token."""


TEXTS = [*SAMPLES, "a", "", "longer and longer " * 30, "ünï côdé 😀", "b c d"]


def built(name, path):
    """The class, the files and what to read of a tiny model, as a task gives them."""
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTextEncoding

    if not name.startswith("more-"):
        tiny.build(f"text-classification-{name}", path)
        return AutoModelForSequenceClassification, {}
    name = name.removeprefix("more-")
    build(name, path)
    kinds = {"t5": AutoModelForTextEncoding, "qwen2": AutoModel, "marian": _Marian}
    bare = {"output": lambda answer: answer.last_hidden_state, "per_token": True}
    return kinds.get(name, AutoModelForSequenceClassification), bare if name in BARE else {}


class _Marian:
    @staticmethod
    def from_pretrained(directory, **options):
        from transformers.models.marian.modeling_marian import MarianEncoder

        return MarianEncoder.from_pretrained(directory, **options)


def different(ones, others):
    return max(
        np.abs(np.asarray(one) - np.asarray(other)).max() / max(1.0, np.abs(np.asarray(other)).max())
        for one, other in zip(ones, others, strict=True)
    )
