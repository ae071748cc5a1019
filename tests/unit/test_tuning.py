"""Ways to run a model faster are kept only where they say the same, or are asked for."""

import logging

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from hfserve.errors import LoadError
from hfserve.runtimes import device, onednn, packing, tuning
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.encoder import EncoderModel
from hfserve.runtimes.tokenizing import SAMPLES
from hfserve.settings import Options, Settings

TEXTS = [*SAMPLES, "a", "", "longer and longer " * 30, "ünï côdé 😀"]


def load(name, directory, **options):
    tiny.build(f"text-classification-{name}", directory)
    return EncoderModel(AutoModelForSequenceClassification, directory, Options(**options))


def answers(model):
    return torch.stack(model([model.encode(text, None)[0] for text in TEXTS]))


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "albert", "deberta-v2", "modernbert"])
def test_bfloat16_is_for_the_asking_and_says_what_it_changes(name, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    exact = load(name, tmp_path)
    assert exact.model.dtype == torch.float32
    assert "differ from float32" not in caplog.text
    half = load(name, tmp_path, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert "in bfloat16, answers differ from float32's by up to" in caplog.text
    assert packing.is_packed(half.model)
    rows = answers(half)
    assert rows.dtype == torch.float32
    change = (rows - answers(exact)).abs().max()
    assert 0 < change < 0.5


def test_in_bfloat16_company_changes_no_more_than_rounding(tmp_path):
    model = load("bert", tmp_path, dtype="bfloat16")
    encoded = [model.encode(text, None)[0] for text in TEXTS]
    alone = torch.stack([model([each])[0] for each in encoded])
    assert (answers(model) - alone).abs().max() < 0.1


def test_tables_of_rotations_stay_in_float32(tmp_path):
    model = load("modernbert", tmp_path, dtype="bfloat16").model
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for name, tensor in model.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_bfloat16_has_layers_of_onednn(tmp_path, monkeypatch):
    """Taken whatever the clock says: that they are quicker is for bigger models to show."""
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(tuning, "_best", lambda run: 0.0)
    model = load("bert", tmp_path, dtype="bfloat16").model
    layers = [module for module in model.modules() if isinstance(module, onednn.OneDnnLinear)]
    assert layers and {layer.blocked.dtype for layer in layers} == {torch.bfloat16}


def test_layers_that_are_not_faster_are_undone(tmp_path, monkeypatch):
    times = iter([1.0, 2.0])
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(tuning, "_best", lambda run: next(times))
    model = load("bert", tmp_path).model
    assert not any(isinstance(module, onednn.OneDnnLinear | onednn.Part) for module in model.modules())


def test_the_choice_and_its_figures_are_a_line_of_the_log(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    times = iter([1.0, 0.5])
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(tuning, "_best", lambda run: next(times))
    load("bert", tmp_path)
    [told] = [each for each in caplog.records if each.getMessage() == "tuned"]
    assert (told.packed, told.layers, told.dtype) == ("attention", "onednn, joined", "float32")
    assert told.seconds == {"torch": 1.0, "onednn, joined": 0.5}


def test_a_model_too_slow_to_time_is_left_as_it_is(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tuning, "PATIENCE", 0.0)
    load("bert", tmp_path)
    [told] = [each for each in caplog.records if each.getMessage() == "tuned"]
    assert told.layers == "torch" and list(told.seconds) == ["torch"]


def test_joined_layers_that_go_wrong_are_taken_apart(tmp_path, monkeypatch, caplog):
    """The first way to lay layers out fails; the second, each for itself, is kept."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(onednn, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(tuning, "_best", lambda run: 0.0)
    monkeypatch.setattr(onednn.Shared, "part", lambda self, number, rows: self.linear(rows)[..., : self.widths[number]])
    model = load("bert", tmp_path).model
    kinds = {type(module) for module in model.modules()}
    assert onednn.OneDnnLinear in kinds and onednn.Part not in kinds and torch.nn.Identity not in kinds
    assert "onednn, joined is not for this model" in caplog.text


def test_float16_on_cpu_is_refused(tmp_path):
    with pytest.raises(LoadError, match=r"HFSERVE_DTYPE=float16 is for GPUs"):
        load("bert", tmp_path, dtype="float16")


@pytest.mark.parametrize(
    "wanted, generation, chosen",
    [("auto", 7, "float16"), ("auto", 8, "bfloat16"), ("auto", 9, "bfloat16"), ("float32", 9, "float32")],
)
def test_the_precision_of_a_gpu_goes_by_its_generation(wanted, generation, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: (generation, 5))
    assert device.dtype(wanted, "cuda:0") == getattr(torch, chosen)


def test_the_precision_is_a_setting(monkeypatch):
    assert device.dtype(Settings.read().options("cpu").dtype, "cpu") == torch.float32
    monkeypatch.setenv("HFSERVE_DTYPE", "bfloat16")
    assert device.dtype(Settings.read().options("cpu").dtype, "cpu") == torch.bfloat16


def test_layers_that_float16_overflows_stay_in_float32(tmp_path):
    from transformers import AutoModelForTextEncoding

    import tiny_encoders

    model = runtime.load(AutoModelForTextEncoding, tiny_encoders.build("t5", tmp_path), Options())
    runtime.cast(model, torch.float16)
    kinds = {name.split(".")[-2]: tensor.dtype for name, tensor in model.named_parameters()}
    assert kinds["wo"] == torch.float32 and kinds["wi"] == torch.float16


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
