"""feature-extraction gives the vectors of transformers' pipeline, or one for a text as sentence models make it."""

import json
import os

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file

import tiny
from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.packing import is_packed
from hfserve.settings import Options
from hfserve.tasks.feature_extraction import FeatureExtraction
from hfserve.tasks.table import TASKS

torch.set_num_threads(1)

TASK = TASKS["feature-extraction"]
NAMES = ["feature-extraction", "feature-extraction-roberta", "feature-extraction-gpt2"]
TEXTS = ["the food was good", "London!", "naïve Ünïcode 日本語 🍕", "a", "the service in paris was not bad " * 2]
LONG = "the food was good " * 40


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    ours = FeatureExtraction(TASK, folder, Options())
    return ours, transformers.pipeline("feature-extraction", model=str(folder), device="cpu")


@pytest.fixture
def folder(tmp_path):
    """A folder that sentence-transformers saved."""
    return tiny.build("feature-extraction-sentences", tmp_path)


def _ask(runner, data):
    return runner.result(data, runner.run(runner.items(data)))


def _change(file, **changes):
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **changes}))


def _tokens(folder, text, longest=24):
    """The vectors of a text's tokens, by transformers alone."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        encoded = words(text, return_tensors="pt", truncation=True, max_length=longest)
        return transformers.AutoModel.from_pretrained(folder)(**encoded)[0][0]


def _dense(folder, vector):
    layer = load_file(folder / "2_Dense/model.safetensors")
    return torch.tanh(torch.nn.functional.linear(vector, layer["linear.weight"], layer["linear.bias"]))


def same(got, expected):
    if isinstance(expected, list) and len({len(each) for each in expected if isinstance(each, list)}) > 1:
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            same(one, other)
        return
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, atol=1e-4)


# Vectors of tokens


def test_the_vectors_of_tokens_are_those_of_the_pipeline(both):
    ours, pipe = both
    expected = [pipe(text) for text in TEXTS]
    for one, other in zip(_ask(ours, {"inputs": TEXTS}), expected, strict=True):
        same(one, other)
    for text, other in zip(TEXTS, expected, strict=True):
        same(_ask(ours, text), other)
    same(_ask(ours, {"inputs": TEXTS[:1], "parameters": {"pooling": "none"}}), pipe(TEXTS[:1]))
    assert _ask(ours, []) == []


def test_a_long_text_is_cut_unless_that_is_refused(both):
    ours, pipe = both
    same(_ask(ours, LONG), pipe(LONG, truncation=True))
    shorter = {"tokenize_kwargs": {"truncation": True, "max_length": 7}}
    same(_ask(ours, {"inputs": LONG, "parameters": shorter}), pipe(LONG, **shorter))
    assert [item.cut for item in ours.items(["a", LONG])] == ["", "inputs[1]"]
    for chosen in ({"truncation": False}, {"tokenize_kwargs": {"truncation": False}}):
        with pytest.raises(InvalidInput, match=r"inputs is longer than the \d+ tokens that the model takes"):
            ours.items({"inputs": LONG, "parameters": chosen})


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_request_may_choose_one_vector_for_a_text(both, pooling, normalize):
    ours, pipe = both
    vectors = [np.array(pipe(text)[0]) for text in TEXTS]
    expected = [tokens.mean(0) if pooling == "mean" else tokens[0] for tokens in vectors]
    expected = [vector / np.linalg.norm(vector) if normalize else vector for vector in expected]
    chosen = {"pooling": pooling, "normalize": normalize}
    same(_ask(ours, {"inputs": TEXTS, "parameters": chosen}), expected)
    same(_ask(ours, {"inputs": TEXTS[0], "parameters": chosen}), expected[0])


def test_requests_of_different_parameters_share_a_pass(both):
    ours, pipe = both
    asked = [{"inputs": text, "parameters": {"pooling": p}} for text in TEXTS for p in ("none", "mean", "cls")]
    items = [ours.items(data)[0] for data in asked]
    assert len({item.batch_key for item in items}) == 1
    assert [item.cost for item in items] == [len(pipe.tokenizer(data["inputs"])["input_ids"]) for data in asked]
    for got, data in zip(ours.run(items), asked, strict=True):
        same(got, _ask(ours, data))


def test_texts_lie_in_one_row_and_company_changes_no_vector(both):
    ours, _ = both
    assert is_packed(ours._texts._model.model)
    items = ours.items([*TEXTS, LONG])
    for together, item in zip(ours.run(items), items, strict=True):
        np.testing.assert_allclose(together, ours.run([item])[0], atol=1e-5)


def test_an_empty_text_has_the_vectors_of_its_special_tokens_if_any(both):
    ours, pipe = both
    if len(pipe.tokenizer("")["input_ids"]):
        same(_ask(ours, ""), pipe(""))
    else:
        with pytest.raises(InvalidInput, match="inputs has no tokens"):
            ours.items("")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, "inputs is a number; it has to be a string"),
        ({"inputs": ["a", None]}, r"inputs\[1\] is null"),
        ({"inputs": "a", "parameters": {"return_tensors": True}}, r"parameters.return_tensors: not known"),
        ({"inputs": "a", "parameters": {"pooling": "max"}}, r"parameters.pooling: "),
        ({"inputs": "a", "parameters": {"normalize": True}}, r"parameters.normalize: is for one vector a text"),
        ({"inputs": "a", "parameters": {"normalize": True, "pooling": "none"}}, r"parameters.normalize: "),
        ({"inputs": "a", "parameters": {"tokenize_kwargs": {"x": 1}}}, r"parameters.tokenize_kwargs.x: not known"),
    ],
)
def test_what_cannot_be_read_is_refused(both, data, words):
    with pytest.raises(InvalidInput, match=words):
        both[0].items(data)


def test_of_the_t5_family_the_encoder_speaks(tmp_path):
    """It is packed too, and its position bias is of each text's own."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "initializer_factor": 1.0}
    words = transformers.AutoTokenizer.from_pretrained(tiny.build("feature-extraction-roberta", tmp_path / "words"))
    model = transformers.T5EncoderModel(transformers.T5Config(**sizes, vocab_size=len(words), pad_token_id=1)).eval()
    for part in (model, words):
        part.save_pretrained(tmp_path / "t5")
    with torch.inference_mode():
        expected = model(**words(TEXTS[0], return_tensors="pt"))[0]
    ours = FeatureExtraction(TASK, tmp_path / "t5", Options())
    assert is_packed(ours._texts._model.model)
    same(_ask(ours, TEXTS[0]), expected.tolist())
    same(_ask(ours, [*TEXTS, TEXTS[0]])[-1], expected.tolist())


# Folders of sentence-transformers


def test_a_sentence_folder_gives_a_vector_by_its_own_modules(folder):
    ours = FeatureExtraction(TASK, folder, Options())
    texts = [*TEXTS, "", LONG]
    expected = [_dense(folder, _tokens(folder, text).mean(0)) for text in texts]
    unit = [torch.nn.functional.normalize(vector, dim=-1).tolist() for vector in expected]
    same(_ask(ours, {"inputs": texts}), unit)
    for text, vector in zip(texts, unit, strict=True):
        same(_ask(ours, text), vector)
    plain = {"inputs": texts, "parameters": {"normalize": False}}
    same(_ask(ours, plain), [vector.tolist() for vector in expected])
    assert ours.items(LONG)[0].cost == 24 and ours.items(LONG)[0].cut == "inputs"
    with pytest.raises(InvalidInput, match="inputs is longer than the 24 tokens"):
        ours.items({"inputs": LONG, "parameters": {"truncation": False}})


def test_a_request_may_choose_other_vectors_than_the_folder_does(folder):
    ours = FeatureExtraction(TASK, folder, Options())
    pipe = transformers.pipeline("feature-extraction", model=str(folder), device="cpu")
    same(_ask(ours, {"inputs": TEXTS[0], "parameters": {"pooling": "none"}}), pipe(TEXTS[0]))
    same(_ask(ours, {"inputs": TEXTS[0], "parameters": {"pooling": "cls"}}), pipe(TEXTS[0])[0][0])


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda t: t[0]),
        ({"pooling_mode_max_tokens": True}, lambda t: torch.cat([t.max(0).values, t.mean(0)])),
        ({"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_mean_tokens": False}, lambda t: t.sum(0) / 6**0.5),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, lambda t: t[-1]),
        ({"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False},
         lambda t: sum((i + 1) * row for i, row in enumerate(t)) / 21),
        ({"pooling_mode": "max"}, lambda t: t.max(0).values),
    ],
)  # fmt: skip
def test_every_pooling_of_a_folder(folder, config, pool):
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    _change(folder / "1_Pooling/config.json", **config)
    got = _ask(FeatureExtraction(TASK, folder, Options()), TEXTS[0])
    same(got, pool(_tokens(folder, TEXTS[0])).tolist())


def test_a_folder_may_lower_its_texts_and_begin_them_with_a_prompt(folder):
    _change(folder / "sentence_bert_config.json", do_lower_case=True)
    _change(folder / "config_sentence_transformers.json", prompts={"query": "food: "}, default_prompt_name="query")
    got = _ask(FeatureExtraction(TASK, folder, Options()), " A taste ")
    expected = _dense(folder, _tokens(folder, "food:  a taste").mean(0))
    same(got, torch.nn.functional.normalize(expected, dim=-1).tolist())
    _change(folder / "1_Pooling/config.json", include_prompt=False)
    with pytest.raises(LoadError, match="leaves the default prompt out"):
        FeatureExtraction(TASK, folder, Options())


def test_a_module_that_is_not_known_leaves_the_vectors_of_tokens(folder, caplog):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    ours = FeatureExtraction(TASK, folder, Options())
    assert np.shape(_ask(ours, TEXTS[0])) == (1, 6, 32)
    assert "SpladePooling" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("modules.json", "{", r"modules.json is not JSON"),
        ("modules.json", "{}", r"modules.json is not a list of modules"),
        ("1_Pooling/config.json", '{"pooling_mode": "loudest"}', r"config.json chooses no pooling of cls, max, mean"),
        ("2_Dense/config.json", '{"activation_function": "os.system"}', r"has the activation system; there are Tanh"),
        ("2_Dense/model.safetensors", "", r"2_Dense did not load: "),
    ],
)
def test_a_broken_folder_is_told_at_load(folder, file, content, words):
    (folder / file).write_text(content)
    with pytest.raises(LoadError, match=words):
        FeatureExtraction(TASK, folder, Options())


def test_a_layer_that_is_a_pickle_is_read_only_when_that_is_allowed(folder):
    expected = _ask(FeatureExtraction(TASK, folder, Options()), TEXTS[0])
    torch.save(load_file(folder / "2_Dense/model.safetensors"), folder / "2_Dense/pytorch_model.bin")
    (folder / "2_Dense/model.safetensors").unlink()
    with pytest.raises(LoadError, match="is a pickle"):
        FeatureExtraction(TASK, folder, Options())
    same(_ask(FeatureExtraction(TASK, folder, Options(allow_pickle=True)), TEXTS[0]), expected)
