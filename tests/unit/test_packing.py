"""Packed, a sequence is what it is alone, whoever shares its row."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import tiny
import tiny_encoders
from hfserve.runtimes import onednn, packing, tuning
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.encoder import EncoderModel, sentences
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.settings import Options

TINY = ("bert", "albert", "distilbert", "roberta", "electra", "xlm-roberta", "deberta-v2", "modernbert")
PADDED = ("deberta-v2-convolution", "mobilebert")
"""Families whose layers mix neighbours, so that sequences in a row would mix."""
FAMILIES = [*TINY, *(f"more-{name}" for name in tiny_encoders.MODELS)]
TEXTS = [*SAMPLES, "a", "", "longer and longer " * 30, "ünï côdé 😀", "b c d"]


def built(name, path):
    """The class, the files and what to read of a tiny model, as a task gives them."""
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTextEncoding

    if not name.startswith("more-"):
        tiny.build(f"text-classification-{name}", path)
        return AutoModelForSequenceClassification, {}
    name = name.removeprefix("more-")
    tiny_encoders.build(name, path)
    kinds = {"t5": AutoModelForTextEncoding, "qwen2": AutoModel, "marian": _Marian}
    bare = {"output": lambda answer: answer.last_hidden_state, "per_token": True}
    return kinds.get(name, AutoModelForSequenceClassification), bare if name in tiny_encoders.BARE else {}


class _Marian:
    @staticmethod
    def from_pretrained(directory, **options):
        from transformers.models.marian.modeling_marian import MarianEncoder

        return MarianEncoder.from_pretrained(directory, **options)


def plain(name, path):
    """A model of a family, untuned, and how to run it."""
    auto, reading = built(name, path)
    model = runtime.load(auto, path, Options())
    encode = Encoder(path, model.config, Options())
    return model, encode, lambda encoded: runtime.forward(model, encoded, encode.pad, **reading), reading


def different(ones, others):
    return max(
        np.abs(np.asarray(one) - np.asarray(other)).max() / max(1.0, np.abs(np.asarray(other)).max())
        for one, other in zip(ones, others, strict=True)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_model_says_what_the_plain_one_does(name, tmp_path):
    model, encode, run, reading = plain(name, tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS if encode(text, None)[0]["input_ids"]]
    alone = [run([each])[0] for each in encoded]
    tuning.tune(model, sentences(encode), encode.pad, first_position=first_position(model.config), **reading)
    assert packing.is_packed(model) == (name.removeprefix("more-") not in PADDED)
    assert different([run([each])[0] for each in encoded], alone) < 2e-5
    assert different(run(encoded), alone) < 2e-5
    assert different(run(encoded[::-1])[::-1], alone) < 2e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_undoing_gives_the_plain_model_back(name, tmp_path):
    model, encode, run, _ = plain(name, tmp_path)
    encoded = [encode(text, None)[0] for text in SAMPLES]
    before, attention = run(encoded), model.config._attn_implementation
    for way in packing.WAYS.values():
        try:
            undo = way(model, first_position(model.config))
        except (NotImplementedError, AttributeError):
            continue
        assert packing.is_packed(model)
        undo()
        assert not packing.is_packed(model)
    assert model.config._attn_implementation == attention
    assert all(torch.equal(one, other) for one, other in zip(run(encoded), before, strict=True))


def wrong(module, query, *arguments, **options):
    return torch.zeros_like(query).transpose(1, 2), None


def broken(*arguments, **options):
    raise RuntimeError("not today")


@pytest.mark.parametrize("fault", [wrong, broken])
def test_where_packing_goes_wrong_the_model_is_padded(fault, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packing, "attention", fault)
    monkeypatch.setattr(packing, "_together", lambda row: torch.ones(1, 1, 1, 1, dtype=torch.bool))
    caplog.set_level(logging.INFO)
    auto, _ = built("bert", tmp_path)
    model = EncoderModel(auto, tmp_path, Options())
    assert not packing.is_packed(model.model)
    assert model.config._attn_implementation == "sdpa"
    for way in packing.WAYS:
        assert f"{way} is not for this model: its answers differ by" in caplog.text
    untouched = runtime.load(auto, tmp_path, Options())
    encoded = [model.encode(text, None)[0] for text in TEXTS]
    assert different(model(encoded), runtime.forward(untouched, encoded, model.encode.pad)) < 2e-5


def test_where_one_way_to_pack_goes_wrong_another_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packing, "attention", wrong)
    caplog.set_level(logging.INFO)
    auto, _ = built("bert", tmp_path)
    model = EncoderModel(auto, tmp_path, Options())
    assert isinstance(packing.packed(model.model), packing.PackedByMask)
    assert model.config._attn_implementation == "sdpa"


def test_a_window_forgotten_is_found_out(tmp_path, monkeypatch):
    """The long example is longer than ModernBERT's windows: without it, this would go unnoticed."""
    monkeypatch.setattr(packing.Row, "mask", lambda *_: None)
    auto, _ = built("modernbert", tmp_path)
    assert not packing.is_packed(EncoderModel(auto, tmp_path, Options()).model)


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_may_be_asked_about_one_kind_of_token_alone(packed, tmp_path):
    from transformers import AutoModelForMaskedLM

    tiny.build("fill-mask", tmp_path)
    model = runtime.load(AutoModelForMaskedLM, tmp_path, Options())
    encode = Encoder(tmp_path, model.config, Options())
    mask = encode.tokenizer.mask_token_id
    texts = ["the [MASK] was good", "the food", "[MASK] [MASK] " * 9, "a [MASK]"]
    encoded = [encode(text, None)[0] for text in texts]
    whole = runtime.forward(model, encoded, encode.pad, per_token=True)
    expected = [row[torch.tensor(each["input_ids"]) == mask] for row, each in zip(whole, encoded, strict=True)]
    undo = packing.by_attention(model, 0) if packed else lambda: None
    rows = runtime.forward(model, encoded, encode.pad, only=mask)
    assert [len(row) for row in rows] == [1, 0, 18, 1]
    for row, other in zip(rows, expected, strict=True):
        torch.testing.assert_close(row, other, atol=2e-5, rtol=2e-5)
    undo()


def test_passes_are_bounded_and_keep_the_order():
    assert runtime.passes([5, 5, 20, 1, 1], 10) == [[0, 1], [2], [3, 4]]
    assert runtime.passes([]) == []


@pytest.mark.parametrize("name, groups, activations", [("bert", 2, 2), ("distilbert", 2, 2), ("albert", 1, 0)])
def test_layers_that_read_the_same_rows_become_one(name, groups, activations, tmp_path, monkeypatch):
    """Also where all layers share their weights, as ALBERT's do; its gelu is not the one that oneDNN has."""
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    model, encode, run, _ = plain(name, tmp_path)
    encoded = [encode(text, None)[0] for text in SAMPLES]
    before = run(encoded)
    undo = onednn.convert(model, lambda: run(encoded))
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(onednn.Part), kinds.count(torch.nn.Identity)) == (3 * groups, activations)
    assert different(run(encoded), before) < 1e-5
    undo()
    assert all(torch.equal(one, other) for one, other in zip(run(encoded), before, strict=True))


def test_joined_layers_keep_the_rows_of_threads_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    model, encode, run, _ = plain("bert", tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS]
    before = run(encoded)
    onednn.convert(model, lambda: run(encoded))
    packing.by_attention(model, 0)
    with ThreadPoolExecutor(4) as lanes:
        for rows in lanes.map(run, [encoded[i:] + encoded[:i] for i in range(len(encoded))] * 5):
            assert min(different(rows, before[i:] + before[:i]) for i in range(len(before))) < 1e-5


def test_a_pass_is_bounded_by_its_tokens_and_by_what_padding_would_make_of_them():
    assert [len(each) for each in runtime.passes([300] * 20)] == [13, 7]
    assert [len(each) for each in runtime.passes([512] + [2] * 1000)] == [32, 969]
    assert [len(each) for each in runtime.passes([9000, 1])] == [1, 1]
