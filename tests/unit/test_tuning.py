"""Ways to run a model faster are kept only where they say the same."""

import numpy as np
import pytest
import torch

import tiny
from hfserve.runtimes import onednn, packing
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.runtimes.tuning import tune
from hfserve.settings import Options

PACKED = ("bert", "albert", "distilbert", "roberta", "electra", "xlm-roberta")
PADDED = ("deberta-v2", "modernbert")
TEXTS = [*SAMPLES, "a", "", "longer and longer " * 30, "ünï côdé 😀"]


def load(name, directory):
    from transformers import AutoModelForSequenceClassification

    tiny.build(f"text-classification-{name}", directory)
    auto = AutoModelForSequenceClassification
    model = runtime.load(auto, directory, Options())
    return model, Encoder(directory, model.config, Options())


def tuned(model, encode):
    samples = [encode(text, None)[0] for text in SAMPLES]
    tune(model, samples, encode.pad, first_position=first_position(model.config))


@pytest.mark.parametrize("name", PACKED + PADDED)
def test_a_tuned_model_says_what_the_plain_one_does(name, tmp_path):
    model, encode = load(name, tmp_path)
    encoded = [encode(text, None)[0] for text in TEXTS]
    alone = [runtime.forward(model, [each], encode.pad)[0].numpy() for each in encoded]
    tuned(model, encode)
    assert packing.is_packed(model) == (name in PACKED)
    together = [row.numpy() for row in runtime.forward(model, encoded, encode.pad)]
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_a_model_that_cannot_be_packed_is_left_as_it_was(tmp_path):
    model, encode = load("modernbert", tmp_path)
    before = model.config._attn_implementation
    tuned(model, encode)
    assert model.config._attn_implementation == before
    assert not packing.is_packed(model)


def test_undoing_gives_the_plain_model_back(tmp_path):
    model, encode = load("bert", tmp_path)
    encoded = [encode(text, None)[0] for text in SAMPLES]
    plain = runtime.forward(model, encoded, encode.pad)
    undo_packing = packing.pack(model, 0)
    undo_linears = onednn.convert(model)
    undo_linears()
    undo_packing()
    again = runtime.forward(model, encoded, encode.pad)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_onednn_gives_the_numbers_of_torch():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(96, 128), torch.nn.GELU(), torch.nn.Linear(128, 96, bias=False))
    rows = torch.randn(3, 7, 96)
    with torch.inference_mode():
        before = plain(rows)
        undo = onednn.convert(plain)
        assert [type(layer) for layer in plain][::2] == [onednn.OneDnnLinear] * 2
        torch.testing.assert_close(plain(rows), before, atol=1e-5, rtol=1e-5)
        undo()
        assert torch.equal(plain(rows), before)
