"""text-to-image answers with the pictures that diffusers paints, the same ones for the same seed."""

import base64
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

if not importlib.util.find_spec("diffusers"):
    pytest.skip("diffusers is an extra", allow_module_level=True)

import torch

import tiny_diffusion
from hfserve import openapi
from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Request
from hfserve.model import TaskModel, run_or_retry
from hfserve.settings import Options, Settings
from hfserve.tasks.detect import detect
from hfserve.tasks.table import TASKS
from hfserve.tasks.text_to_image import TextToImage

torch.set_num_threads(1)

TASK = TASKS["text-to-image"]
APPLE = "a red apple"
QUICK = {"num_inference_steps": 2, "seed": 7}
LONG = "a red apple and " * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_diffusion.build(tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def runner(folder):
    return TextToImage(TASK, folder, Options())


@pytest.fixture(scope="module")
def pipe(folder):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": {**QUICK, **parameters}}
    outcomes = run_or_retry(runner.run, runner.items(data))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return runner.result(data, outcomes)


def _pixels(picture):
    return np.asarray(picture).tolist()


def _directly(pipe, prompt, **parameters):
    return pipe(prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(7), **parameters).images


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"height": 48, "width": 24},
        {"guidance_scale": 1.0},
        {"guidance_scale": 12, "guidance_rescale": 0.7},
        {"negative_prompt": "bad food, Zoë 🍕"},
        {"num_inference_steps": 5},
    ],
)
def test_a_picture_is_the_one_that_diffusers_paints(runner, pipe, parameters):
    picture = _ask(runner, APPLE, **parameters)
    (expected,) = pipe(APPLE, generator=torch.Generator().manual_seed(7), **{"num_inference_steps": 2, **parameters})[0]
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"
    assert picture.size == (parameters.get("width", 32), parameters.get("height", 32))
    assert _pixels(picture) == _pixels(expected)


def test_every_parameter_changes_the_picture(runner):
    changes = [{}, {"guidance_scale": 50}, {"negative_prompt": "food"}, {"num_inference_steps": 3}, {"seed": 8}]
    pictures = [_pixels(_ask(runner, APPLE, **change)) for change in changes]
    assert all(one != other for i, one in enumerate(pictures) for other in pictures[:i])


def test_a_seed_gives_the_same_picture_in_any_company(runner):
    alone = [_pixels(_ask(runner, prompt)) for prompt in (APPLE, "the sea")]
    assert alone[0] != alone[1]
    assert [_pixels(picture) for picture in _ask(runner, [APPLE, "the sea", APPLE])] == [*alone, alone[0]]


def test_without_a_seed_pictures_differ(runner):
    first, second = _ask(runner, [APPLE, APPLE], seed=None)
    assert _pixels(first) != _pixels(second)


def test_several_pictures_of_a_prompt_come_as_a_list(runner, pipe):
    pictures = _ask(runner, APPLE, num_images_per_prompt=2)
    expected = _directly(pipe, APPLE, num_images_per_prompt=2)
    assert [_pixels(each) for each in pictures] == [_pixels(each) for each in expected]
    (lists,) = _ask(runner, [APPLE], num_images_per_prompt=2)
    assert [_pixels(each) for each in lists] == [_pixels(each) for each in expected]


def test_a_lone_prompt_in_a_list_is_answered_with_a_list(runner):
    (picture,) = _ask(runner, [APPLE])
    assert _pixels(picture) == _pixels(_ask(runner, APPLE))
    assert _ask(runner, []) == []


def test_a_prompt_that_is_too_long_is_cut_and_told(runner, pipe):
    (item,) = runner.items({"inputs": LONG})
    (short,) = runner.items({"inputs": APPLE})
    assert (item.cut, short.cut) == ("inputs", "")
    assert _pixels(_ask(runner, LONG)) == _pixels(_directly(pipe, LONG)[0])
    with pytest.raises(InvalidInput, match=r'inputs\[1\] is longer than the 24 tokens .*"truncation": false'):
        runner.items({"inputs": [APPLE, LONG], "parameters": {"truncation": False}})


def test_each_picture_is_painted_alone(runner):
    one, other = runner.items({"inputs": [APPLE, APPLE], "parameters": QUICK})
    assert one.batch_key != other.batch_key and not runner.concurrent


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"inputs": 7}, "inputs is a number; it has to be a string"),
        ({"inputs": None}, "inputs is null"),
        ({"inputs": [APPLE, {}]}, r"inputs\[1\] is an object"),
        ({"prompt": APPLE}, "inputs is an object"),
        ({"inputs": APPLE, "parameters": [2]}, "parameters is an object"),
    ],
)
def test_wrong_inputs_are_named(runner, data, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        runner.items(data)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"output_type": "np"}, "parameters.output_type: not known; there are negative_prompt, "),
        ({"callback_on_step_end": "x"}, "parameters.callback_on_step_end: not known"),
        ({"num_inference_steps": 0}, "parameters.num_inference_steps: .*greater than or equal to 1"),
        ({"num_inference_steps": 10_000}, "parameters.num_inference_steps: .*less than or equal to 1000"),
        ({"num_images_per_prompt": 17}, "parameters.num_images_per_prompt: "),
        ({"guidance_scale": "much"}, "parameters.guidance_scale: "),
        ({"guidance_scale": float("nan")}, "parameters.guidance_scale: .*finite"),
        ({"seed": -1}, "parameters.seed: "),
        ({"negative_prompt": ["a"]}, "parameters.negative_prompt: "),
        ({"height": 64}, "parameters.width is missing"),
        ({"width": 64}, "parameters.height is missing"),
        ({"height": 72, "width": 64}, r"parameters.height: 72 × 64 are 4608 pixels; this server takes 4096 \(HFSERVE_"),
        ({"height": 8192, "width": 8}, "parameters.height: this server takes 4096 at most"),
        ({"height": 4, "width": 64}, "parameters.height: "),
    ],
)
def test_wrong_parameters_are_named(folder, runner, monkeypatch, parameters, sentence):
    monkeypatch.setattr(runner, "_options", Options(max_pixels=4096))
    with pytest.raises(InvalidInput, match=sentence):
        runner.items({"inputs": APPLE, "parameters": parameters})


def test_what_the_pipeline_refuses_is_told(runner):
    with pytest.raises(InvalidInput, match="`height` and `width` have to be divisible by 8 but are 41 and 40"):
        _ask(runner, APPLE, height=41, width=40)


def test_what_another_pipeline_does_not_take_is_named(folder, monkeypatch):
    runner = TextToImage(TASK, folder, Options())
    monkeypatch.setattr(runner, "_takes", {"num_inference_steps", "seed"})
    message = "parameters.negative_prompt: this model does not take it; it takes num_inference_steps, seed"
    with pytest.raises(InvalidInput, match=message):
        runner.items({"inputs": APPLE, "parameters": {"negative_prompt": "bad"}})
    assert _ask(runner, APPLE).size == (32, 32)


# Forms


def _reply(runner, accept, data):
    model = TaskModel(runner, Settings(model_dir=Path(), _env_file=None))
    headers = {"content-type": "application/json", "accept": accept}
    job = model.prepare(Request(json.dumps(data).encode(), headers, "1", float("inf")))
    return job.finish(model.run(job.items, 1))


def test_a_picture_comes_as_base64_or_as_it_is(runner):
    data = {"inputs": APPLE, "parameters": QUICK}
    expected = _pixels(_ask(runner, APPLE))
    encoded = json.loads(_reply(runner, "application/json", data).body)
    assert _pixels(Image.open(io.BytesIO(base64.b64decode(encoded)))) == expected
    raw = _reply(runner, "image/png", data)
    assert raw.content_type == "image/png" and _pixels(Image.open(io.BytesIO(raw.body))) == expected


def test_the_document_knows_the_limits(runner):
    schemas = openapi.document(TASK, Options(max_pixels=4096))["components"]["schemas"]
    height = schemas["Parameters"]["properties"]["height"]["anyOf"][0]
    assert (height["minimum"], height["maximum"]) == (8, 4096)


def test_the_example_is_answered_at_warm_up(runner):
    model = TaskModel(runner, Settings(model_dir=Path(), _env_file=None))
    model.warm_up()
    assert model.task == "text-to-image"


# Loading


def test_the_task_is_found(folder):
    assert detect(folder) == "text-to-image"


def test_the_extra_is_named_when_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(LoadError, match=r"text-to-image needs the package diffusers: pip install 'hfserve\[diffusers"):
        TextToImage(TASK, folder, Options())


def _copy(folder, path):
    for file in folder.rglob("*"):
        if file.is_file():
            target = path / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return path


def test_a_pickle_is_loaded_only_when_asked_for(folder, runner, tmp_path):
    from safetensors.torch import load_file

    copied = _copy(folder, tmp_path)
    safe = copied / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), copied / "unet/diffusion_pytorch_model.bin")
    safe.unlink()
    with pytest.raises(LoadError, match=r"diffusion_pytorch_model.bin is a pickle.*HFSERVE_ALLOW_PICKLE"):
        TextToImage(TASK, copied, Options())
    pickled = TextToImage(TASK, copied, Options(allow_pickle=True))
    assert _pixels(_ask(pickled, APPLE)) == _pixels(_ask(runner, APPLE))


def test_a_pickle_that_holds_code_does_not_run(folder, tmp_path):
    copied = _copy(folder, tmp_path / "model")
    (copied / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"evil": _Evil(tmp_path / "owned")}, copied / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(LoadError, match="did not load"):
        TextToImage(TASK, copied, Options(allow_pickle=True))
    assert not (tmp_path / "owned").exists()


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.mkdir, (self.path,))


def test_code_beside_the_weights_does_not_run(folder, tmp_path):
    copied = _copy(folder, tmp_path / "model")
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({**index, "unet": ["painter", "Painter"]}))
    owned = tmp_path / "owned"
    (copied / "unet/painter.py").write_text(f"open({str(owned)!r}, 'w')\nclass Painter: pass\n")
    with pytest.raises(LoadError, match=r"text-to-image model did not load: .*contains custom code in painter\.py"):
        TextToImage(TASK, copied, Options())
    assert not owned.exists()


def test_a_pipeline_without_a_prompt_is_refused(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    denoiser = UNet2DModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    DDPMPipeline(denoiser, DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="DDPMPipeline is not for text-to-image: it takes no prompt"):
        TextToImage(TASK, tmp_path, Options())


def test_a_model_that_does_not_load_says_why(folder, tmp_path):
    copied = _copy(folder, tmp_path)
    (copied / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    with pytest.raises(LoadError, match=r"text-to-image model did not load: .*(afetensor|header)"):
        TextToImage(TASK, copied, Options())


def test_in_bfloat16_pictures_are_near_those_of_float32(folder, runner):
    half = TextToImage(TASK, folder, Options(dtype="bfloat16"))
    assert half._pipe.unet.dtype == torch.bfloat16
    one, other = (np.asarray(_ask(each, APPLE), dtype=float) for each in (half, runner))
    assert 0 < np.abs(one - other).mean() < 8
