"""Packed, a sequence is what it is alone, whoever shares its row."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
import tiny_encoders
from hfserve.runtimes import attention, onednn, packing, tuning
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.encoder import EncoderModel, sentences
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.settings import Options
from tiny_encoders import TEXTS, built, different

TINY = ("bert", "albert", "distilbert", "roberta", "electra", "xlm-roberta", "deberta-v2", "modernbert")
PADDED = ("deberta-v2-convolution", "mobilebert")
"""Families whose layers mix neighbours, so that sequences in a row would mix."""
FAMILIES = [*TINY, *(f"more-{name}" for name in tiny_encoders.MODELS)]


def plain(name, path):
    """A model of a family, untuned, and how to run it."""
    auto, reading = built(name, path)
    model = runtime.load(auto, path, Options())
    encode = Encoder(path, model.config, Options())
    return model, encode, lambda encoded: runtime.forward(model, encoded, encode.pad, **reading), reading


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_model_says_what_the_plain_one_does(name, tmp_path):
    model, encode, run, _ = plain(name, tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS if encode(text, None)[0]["input_ids"]]
    alone = [run([each])[0] for each in encoded]
    tuning.tune(model, run, sentences(encode), first_position=first_position(model.config))
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


IN_ROWS = ("bert", "distilbert", "modernbert", *(f"more-{name}" for name in ("gpt2", "llama", "mistral", "t5", "bart")))
"""Plain, local, causal, causal and local with shared heads, with a bias, and with a decoder: all by attention."""


def flash(query, key, value, bounds, bounds_of_keys, longest, longest_key, *, scale, window_size, enable_gqa):
    """torch's varlen_attn in words: it needs a GPU."""
    assert torch.equal(bounds, bounds_of_keys) and bounds.dtype == torch.int32
    assert longest == longest_key == int(bounds.diff().max())
    assert enable_gqa or query.shape[1] == key.shape[1]
    shared_by = query.shape[1] // key.shape[1]
    behind, before = (len(query) if each < 0 else each for each in window_size)
    place, sequence = torch.arange(len(query)), torch.bucketize(torch.arange(len(query)), bounds[1:], right=True)
    distance = place[None] - place[:, None]
    seen = (sequence[:, None] == sequence) & (distance >= -behind) & (distance <= before)
    keys, values = (each.repeat_interleave(shared_by, dim=1) for each in (key, value))
    scores = torch.einsum("qhw,khw->hqk", query, keys) * (scale or query.shape[2] ** -0.5)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khw->qhw", weights, values)


@pytest.fixture
def flashes(monkeypatch):
    """Stands in for torch's attention on GPUs; the longest sequence of every call."""
    from torch.nn.attention import varlen

    seen = []

    def noted(*arguments, **options):
        seen.append(arguments[5])
        return flash(*arguments, **options)

    monkeypatch.setattr(varlen, "varlen_attn", noted)
    return seen


@pytest.mark.parametrize("way", attention.WAYS)
@pytest.mark.parametrize("name", IN_ROWS)
def test_attention_in_few_launches_says_what_that_of_each_sequence_does(name, way, flashes, tmp_path):
    model, encode, run, _ = plain(name, tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS if encode(text, None)[0]["input_ids"]]
    alone = [run([each])[0] for each in encoded]
    packing.by_attention(model, first_position(model.config))
    undo = attention.put_in(model, way)
    assert different(run(encoded), alone) < 2e-5
    assert different(run(encoded[:1]), alone[:1]) < 2e-5
    assert bool(flashes) == (way == "varlen" and name != "more-t5")
    undo()
    flashes.clear()
    assert different(run(encoded), alone) < 2e-5
    assert not flashes


@pytest.mark.parametrize("way", attention.WAYS)
def test_a_window_forgotten_is_found_out_there_too(way, flashes, tmp_path, monkeypatch):
    model, encode, run, _ = plain("modernbert", tmp_path)
    encoded = sentences(encode)
    alone = [run([each])[0] for each in encoded]
    packing.by_attention(model, 0)
    attention.put_in(model, way)
    monkeypatch.setattr(attention, "_window", lambda causal, window: (-1, -1))
    monkeypatch.setattr(packing.Row, "mask", lambda *_: None)
    assert different(run(encoded), alone) > tuning.TOLERANCE


@pytest.mark.parametrize(("fault", "taken"), [(None, "_buckets"), (wrong, "")])
def test_what_cannot_be_done_or_differs_leaves_the_next_way(fault, taken, tmp_path, monkeypatch, caplog):
    """torch's attention for any length is not there on a CPU, and raises."""
    caplog.set_level(logging.INFO)
    model, encode, run, _ = plain("bert", tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS]
    alone = run(encoded)
    ways = {"varlen": attention.varlen, "buckets": fault or attention.bucketed}
    monkeypatch.setattr(attention, "WAYS", ways)
    monkeypatch.setattr(
        attention, "ways", lambda model: {name: partial(attention.put_in, model, name) for name in ways}
    )
    tuning.tune(model, run, encoded, first_position=0, wanted=tuning.Wanted("torch"))
    assert model.config._attn_implementation == packing.NAME + taken
    assert "varlen is not for this model" in caplog.text
    assert ("buckets is not for this model" in caplog.text) == bool(fault)
    assert different(run(encoded), alone) < 2e-5


def test_only_a_packed_model_on_a_gpu_has_another_attention(tmp_path):
    model, *_ = plain("bert", tmp_path)
    assert attention.ways(model) == {}
    packing.by_attention(model, 0)
    assert attention.ways(model) == {}


@pytest.mark.parametrize(
    ("generation", "dtype", "ways"),
    [
        (7, torch.float16, ("buckets",)),
        (7, torch.float32, ("buckets",)),
        (8, torch.float32, ("buckets",)),
        (8, torch.float16, ("varlen", "buckets")),
        (8, torch.bfloat16, ("varlen", "buckets")),
        (10, torch.bfloat16, ("varlen", "buckets")),
    ],
)
def test_the_generation_of_a_gpu_and_the_precision_say_which(generation, dtype, ways):
    assert attention.suited(generation, dtype) == ways


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80))
def test_buckets_hold_every_token_once_and_little_else(lengths):
    buckets = attention.Buckets.of(lengths, torch.device("cpu"))
    everything = torch.arange(sum(lengths))
    assert torch.equal(buckets.tokens[buckets.back], everything)
    assert torch.equal(buckets.tokens[buckets.real].sort().values, everything)
    assert sum(shape.sequences for shape in buckets.shapes) == len(lengths)
    owner = everything.new_tensor(range(len(lengths))).repeat_interleave(torch.tensor(lengths))
    for shape, tokens, real in zip(
        buckets.shapes, buckets.split(buckets.tokens), buckets.split(buckets.real), strict=True
    ):
        assert tokens.shape == real.shape == (shape.sequences, shape.width)
        assert shape.is_full == bool(real.all())
        assert shape.width % attention.ALIGNED == 0 or shape.is_full
        assert all(len(owner[row].unique()) == 1 for row in tokens)
        assert shape.width - attention.ALIGNED < attention.MOST_PADDING * real.sum(1).float().mean()
