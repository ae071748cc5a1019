"""Writes vision.json: what the pipelines of transformers 4.57.6 answer about pictures, for versions that have none.

    python make_vision.py MODELS > vision.json

MODELS holds the tiny models of tests/tiny_vision.py, each under its name. Run it where transformers 4.57.6 and Pillow
are installed. In the requests, `@name` stands for the picture of that name; of a picture in an answer there are its
size and some of its pixels.
"""

import base64
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from make_text2text import readable
from PIL import Image

VQA, TEXT, IMAGE = "visual-question-answering", "image-to-text", "image-to-image"
WRITERS = [f"{TEXT}-{kind}" for kind in ("gpt2", "trocr", "donut", "blip", "git", "pix2struct")]
MODES = {
    "colours": ("RGB", 40, 32), "gray": ("L", 32, 32), "bright": ("L", 20, 50), "glass": ("RGBA", 33, 47),
    "palette": ("P", 36, 24), "wide": ("RGB", 90, 17), "small": ("RGB", 3, 5),
    "bits": ("1", 24, 24), "turned": ("RGB", 30, 20),
}  # fmt: skip
SAMPLES = 12
"""Pixels that are kept of a picture, in each direction at most."""


def picture(mode: str, width: int, height: int) -> Image.Image:
    """Slopes of colour, with a hole in what can be seen through."""
    pixels = [
        (x * 255 // width, y * 255 // height, (x * y * 7) % 256, 64 + (x + y) % 128)
        for y in range(height) for x in range(width)
    ]  # fmt: skip
    image = Image.new("RGBA", (width, height))
    image.putdata(pixels)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def saved(name: str, image: Image.Image) -> str:
    """The picture as PNG in base64; one of them says that it was taken with the camera on its side."""
    file, exif = io.BytesIO(), Image.Exif()
    if name == "turned":
        exif[0x0112] = 6
    image.save(file, "PNG", exif=exif)
    return base64.b64encode(file.getvalue()).decode()


def _of(inputs, **parameters):
    return {"inputs": inputs, "parameters": parameters}


def _ask(image, question, **parameters):
    return _of({"image": image, "question": question}, **parameters)


def questions(**always):
    """Requests about pictures that any model for questions takes."""
    yield from (_ask(f"@{name}", "is the food good ?", **always) for name in MODES)
    yield from (
        _ask("@colours", text, **always) for text in ("why", "", "Où est 東京 🍕?", "WAS it THE price of 12.5 ?")
    )
    yield _ask("@colours", ["is it good ?", "of the taste in london", "a"], **always)
    yield _ask("@colours", ["is it good ?"], **always)
    yield _ask(["@colours", "@wide"], "is it bad ?", **always)
    yield _ask(["@colours", "@small"], ["is it bad ?", "price"], **always)
    several = [{"image": "@gray", "question": "is it bad ?"}, {"image": "@wide", "question": "what of london"}]
    yield _of(several, **always)
    yield _of(several[:1], **always)


SHORT = {"max_new_tokens": 8}
CHOICES = [
    {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"min_length": 12}, {"repetition_penalty": 2.5},
    {"no_repeat_ngram_size": 1}, {"num_beams": 2, "length_penalty": -1.0, "early_stopping": True},
    {"min_new_tokens": 7},
]  # fmt: skip


def captions(name):
    """Requests that any model for captions takes."""
    yield from (_of(f"@{name}", **SHORT) for name in MODES)
    yield _of(["@colours", "@gray", "@wide"], **SHORT)
    yield _of(["@colours"], **SHORT)
    yield _of("@colours")
    yield from (_of("@colours", generate_kwargs={**SHORT, **choice}) for choice in CHOICES)
    if name in {f"{TEXT}-blip", f"{TEXT}-git"}:
        yield from (_of("@gray", prompt=text, **SHORT) for text in ("a food of", "the", "Où 東京", "bad"))
        yield _of(["@gray", "@colours"], prompt="the price of", generate_kwargs={**SHORT, "num_beams": 2})


REQUESTS = [
    *((f"{VQA}-vilt", VQA, request) for request in questions()),
    *((f"{VQA}-vilt", VQA, _ask("@colours", "is it good ?", top_k=top_k)) for top_k in (1, 2, 5, 50)),
    (f"{VQA}-vilt", VQA, _ask("@colours", ["is it good ?", "price"], top_k=1)),
    *((f"{VQA}-blip", VQA, request) for request in questions()),
    (f"{VQA}-blip", VQA, _ask("@colours", "is it good ?", top_k=3)),
    *((name, TEXT, request) for name in WRITERS for request in captions(name)),
    *((f"{IMAGE}-swin2sr", IMAGE, _of(f"@{name}")) for name in MODES),
    (f"{IMAGE}-swin2sr", IMAGE, _of(["@colours", "@small", "@gray"])),
    (f"{IMAGE}-swin2sr", IMAGE, _of(["@colours"])),
]


def filled(value, pictures):
    """A request with its pictures in the places of their names."""
    if isinstance(value, str) and value.startswith("@"):
        return pictures[value[1:]]
    if isinstance(value, list):
        return [filled(each, pictures) for each in value]
    return {name: filled(each, pictures) for name, each in value.items()} if isinstance(value, dict) else value


def told(answer):
    """An answer with some of the pixels of its pictures."""
    if isinstance(answer, list):
        return [told(each) for each in answer]
    if not isinstance(answer, Image.Image):
        return answer
    columns, rows = (sorted({i * (side - 1) // SAMPLES for i in range(SAMPLES + 1)}) for side in answer.size)
    return {"size": answer.size, "pixels": [[x, y, *answer.getpixel((x, y))] for y in rows for x in columns][::5]}


def ask(pipe, task, request, pictures):
    """The pipeline's answer."""
    inputs = filled(request["inputs"], pictures)
    if task == VQA and isinstance(inputs, dict):
        return pipe(**inputs, **request["parameters"])
    return pipe(inputs, **request["parameters"])


def main(folder: Path) -> None:
    """Write the pictures, and every answer on a line."""
    assert transformers.__version__ == "4.57.6", transformers.__version__
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    encoded = {name: saved(name, picture(*mode)) for name, mode in MODES.items()}
    pictures = {name: Image.open(io.BytesIO(base64.b64decode(content))) for name, content in encoded.items()}
    pipes, rows = {}, []
    with tempfile.TemporaryDirectory() as place:
        for name, task, request in REQUESTS:
            if name not in pipes:
                written = (folder / name / "tokenizer_config.json").is_file()
                copy = readable(folder / name, Path(place)) if written else folder / name
                pipes[name] = transformers.pipeline(task, model=str(copy), device="cpu")
            answer = told(ask(pipes[name], task, request, pictures))
            rows.append(json.dumps([name, task, request, answer], ensure_ascii=False))
    print(f'{{"pictures": {json.dumps(encoded)},\n"answers": [\n' + ",\n".join(rows) + "\n]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
