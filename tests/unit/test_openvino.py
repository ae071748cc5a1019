"""OpenVINO says what torch does, or says that it cannot; in int8 it says how far off it is."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hfserve.errors import LoadError
from hfserve.runtimes import openvino, packing, tuning
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from tiny_encoders import TEXTS, built, different

RUN = ("bert", "albert", "distilbert", "roberta", "electra", "xlm-roberta", "more-mpnet", "more-camembert")
REFUSED = ("deberta-v2", "modernbert", "more-mobilebert", "more-t5", "more-bart", "more-gpt2", "more-qwen2")
SENTENCES = ["I love it", "It is bad", "Never again\tnot true", "", "the people were kind and the food was good"]


def load(name, path, **options):
    auto, reading = built(name, path)
    return EncoderModel(auto, path, Options(**options), **reading)


def again(name, path, **options):
    """The same files once more."""
    from transformers import AutoModelForSequenceClassification

    return EncoderModel(AutoModelForSequenceClassification, path, Options(**options))


def encoded(model):
    return [each for text in TEXTS if (each := model.encode(text, None)[0])["input_ids"]]


def is_openvino(model):
    return isinstance(packing.packed(model.model).run, openvino.Layers)


@pytest.mark.parametrize("name", RUN)
def test_openvino_says_what_torch_does_in_any_company(name, tmp_path):
    ours, theirs = load(name, tmp_path / "a", runtime="openvino"), load(name, tmp_path / "b", runtime="torch")
    texts = encoded(ours)
    expected = theirs(texts)
    assert is_openvino(ours) and not is_openvino(theirs)
    assert different(ours(texts), expected) < 2e-5
    assert different([ours([each])[0] for each in texts], expected) < 2e-5
    assert different(ours(texts[::-1])[::-1], expected) < 2e-5


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_openvino_cannot_run_is_refused_in_a_sentence(name, tmp_path):
    with pytest.raises(LoadError, match=r"OpenVINO .*; unset HFSERVE_RUNTIME"):
        load(name, tmp_path, runtime="openvino")


def test_lanes_do_not_disturb_each_other(tmp_path):
    model = load("bert", tmp_path, runtime="openvino")
    texts = encoded(model)
    alone = model(texts)

    def lane(i):
        torch.set_num_threads(1 + i % 2)
        return model(texts[i:] + texts[:i])

    with ThreadPoolExecutor(4) as lanes:
        for i, rows in zip(range(20), lanes.map(lane, [i % len(texts) for i in range(20)]), strict=True):
            turn = i % len(texts)
            assert different(rows, alone[turn:] + alone[:turn]) < 2e-5


def test_asked_about_one_kind_of_token_it_answers_for_those(tmp_path):
    from transformers import AutoModelForMaskedLM

    import tiny
    from hfserve.tasks.fill_mask import _examples, _mask

    tiny.build("fill-mask", tmp_path)
    models = [
        EncoderModel(AutoModelForMaskedLM, tmp_path, Options(runtime=runtime), only=_mask, examples=_examples)
        for runtime in ("openvino", "torch")
    ]
    texts = [models[0].encode(text, None)[0] for text in ("the [MASK] was", "[MASK] and [MASK]", "none")]
    ours, theirs = (model(texts) for model in models)
    assert [len(each) for each in ours] == [1, 2, 0]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_the_weights_that_openvino_copied_are_freed_and_the_heads_are_not(tmp_path):
    model = load("bert", tmp_path, runtime="openvino")
    base = model.model.base_model
    assert not sum(each.numel() for each in base.encoder.parameters())
    assert not sum(each.numel() for each in base.embeddings.parameters())
    assert all(each.numel() for each in [*base.pooler.parameters(), *model.model.classifier.parameters()])


@pytest.fixture
def sentences(tmp_path):
    (tmp_path / "sentences.txt").write_text("\n".join(SENTENCES * 8))
    return str(tmp_path / "sentences.txt")


def int8(sentences, **more):
    return {"runtime": "openvino", "dtype": "int8", "calibration": sentences, **more}


def test_sentences_that_are_not_there_are_named(tmp_path):
    with pytest.raises(LoadError, match=r"HFSERVE_CALIBRATION=mine\.txt: there is no such file"):
        load("bert", tmp_path / "model", **int8("mine.txt"))


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(LoadError, match=r"needs openvino: pip install 'hfserve\[openvino\]'"):
        load("bert", tmp_path, runtime="openvino")


def test_int8_without_its_package_says_so(tmp_path, sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(LoadError, match="needs nncf: pip install"):
        load("bert", tmp_path / "model", **int8(sentences))


def test_openvino_is_for_cpus(tmp_path):
    with pytest.raises(LoadError, match="for CPUs; unset it, or set HFSERVE_DEVICE=cpu"):
        load("bert", tmp_path, runtime="openvino", device="cuda:0")


def test_unasked_openvino_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "traced", lambda *_: pytest.fail("tried"))
    assert not is_openvino(load("bert", tmp_path))


def test_what_was_found_is_remembered_for_the_next_worker(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first = load("bert", tmp_path / "model", run_dir=tmp_path)
    monkeypatch.setattr(tuning, "_best", lambda run: pytest.fail("timed again"))
    second = again("bert", tmp_path / "model", run_dir=tmp_path)
    told = [each for each in caplog.records if each.getMessage() == "tuned"]
    assert [each.known for each in told] == [False, True]
    assert told[0].layers == told[1].layers and told[0].packed == told[1].packed == "attention"
    assert different(second(encoded(second)), first(encoded(first))) < 2e-5


def test_other_weights_are_not_taken_for_those_that_are_remembered(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    load("bert", tmp_path / "model", run_dir=tmp_path)
    load("electra", tmp_path / "model", run_dir=tmp_path)
    assert [each.known for each in caplog.records if each.getMessage() == "tuned"] == [False, False]


def test_nobody_is_told_that_openvino_is_used(tmp_path):
    assert is_openvino(load("bert", tmp_path, runtime="openvino"))
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("task", ["text-generation", "image-classification"])
def test_models_that_are_no_encoders_say_so(task, tmp_path):
    from transformers import AutoModelForCausalLM

    import zoo
    from hfserve.runtimes import torch as runtime
    from hfserve.tasks.pipeline import build

    zoo.build(task, tmp_path)
    loads = {"text-generation": lambda *given: runtime.load(AutoModelForCausalLM, *given)}
    with pytest.raises(LoadError, match="is for text encoders; unset it"):
        loads.get(task, lambda *given: build(task, *given))(tmp_path, Options(runtime="openvino"))
