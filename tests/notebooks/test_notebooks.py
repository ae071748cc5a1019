"""The notebooks, cell by cell as they are, on a local SageMaker; and their copies in docs/notebooks."""

import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = ROOT / "docs/notebooks"

SHOWN = {
    "01_first_endpoint": ("'answer': 'port 8080'", "ModelError 422", "within sixty seconds"),
    "02_custom_inference": ("délicieux 0.9", "422 send {", "32 threads:", "all 2048, "),
    "03_generation_and_streaming": ("a small server in a big cloud .", "'finish_reason': 'eos_token'", "of 400 tokens"),
    "04_batch_async_and_multi_model": ("1000 reviews, 1000 answers", "copy-of-sentiment.tar.gz: [{'label': 'NEGATIVE'"),
    "05_latency_and_autoscaling": ("requests/s     p50 ms", "USD per million requests with", '"TargetValue"', "![png]"),
}
"""What a reader of each should find."""

ENVIRONMENT = {
    "01_first_endpoint": {"MODEL_ID": "models/question-answering"},
    "02_custom_inference": {"MODEL_ID": "models/fill-mask"},
    "03_generation_and_streaming": {"MODEL_ID": "{models}/text-generation"},
    "04_batch_async_and_multi_model": {
        "MODEL_ID": "models/sentiment", "SECOND_MODEL_ID": "models/question-answering",
    },
    "05_latency_and_autoscaling": {"MODEL_ID": "{models}/sentiment"},
}  # fmt: skip
"""Local directories in the place of models of the Hub."""

ABOVE = (
    "> Made from [{name}.ipynb](../../notebooks/{name}.ipynb) by `pytest tests/notebooks --render`, on the "
    "[local SageMaker](../local_sagemaker.md) with models so small that they know little more than the texts shown. "
    "Times, throughput and cost are theirs, on a CPU that had other work too, and not those of an ml.g4dn.xlarge."
)


def linked(page):
    """The same, with links that lead to its neighbours in the docs."""
    return re.sub(r"\]\((\d\w+)\.ipynb\)", r"](\1.md)", page).replace("](README.md)", "](../../notebooks/README.md)")


def render(name, page, made):
    """Put a page and its pictures into the docs."""
    title, _, rest = linked(page).partition("\n\n")
    (PAGES / f"{name}.md").write_text(f"{title}\n\n{ABOVE.format(name=name)}\n\n{rest.rstrip()}\n")
    shutil.rmtree(PAGES / f"{name}_files", ignore_errors=True)
    for picture in sorted((made / f"{name}_files").glob("*.png")):
        (PAGES / f"{name}_files").mkdir(exist_ok=True)
        shutil.copy(picture, PAGES / f"{name}_files")


def cells(notebook):
    return json.loads(notebook.read_text())["cells"]


notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


@notebooks
@pytest.mark.timeout(900)
def test_it_runs_shows_what_it_says_and_leaves_nothing(notebook, desk, request):
    name = notebook.stem
    environment = {key: value.format(models=desk.folder / "models") for key, value in ENVIRONMENT[name].items()}
    page = desk.page(notebook, **environment)
    if request.config.getoption("--render", default=False):
        render(name, page, desk.pages)
    missing = [words for words in (*SHOWN[name], "nothing is left") if words not in page]
    assert not missing, f"{missing} not in:\n{page}"
    assert not desk.left()


@pytest.mark.timeout(300)
def test_without_an_image_it_says_how_to_come_by_one(desk):
    setup = "".join(next(cell for cell in cells(NOTEBOOKS[0]) if cell["id"] == "setup")["source"])
    ran = desk.run("-c", setup, HFSERVE_IMAGE="")
    assert ran.returncode == 1 and "deploy/sagemaker/push_ecr.sh" in ran.stdout
    assert (ROOT / "deploy/sagemaker/push_ecr.sh").exists()


@notebooks
def test_it_is_stored_without_outputs_and_with_ids(notebook):
    stored = json.loads(notebook.read_text())
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z-]{1,64}", each) for each in ids)
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert not any(cell["metadata"] for cell in stored["cells"])


@notebooks
def test_only_the_environment_tells_it_where_it_runs(notebook):
    code = "".join("".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code")
    assert not re.search(r"endpoint_url|127\.0\.0\.1|localhost|local_test|/tmp", code)


@notebooks
def test_the_copy_in_the_docs_is_of_this_notebook(notebook):
    copy = (PAGES / f"{notebook.stem}.md").read_text()
    sources = (linked("".join(cell["source"])) for cell in cells(notebook))
    parts = (part for source in sources for part in source.split("\n\n"))
    absent = [part for part in parts if part.strip() not in copy]
    assert not re.search(r"/(tmp|root|home|work)/", copy)
    assert not absent, f"run `pytest tests/notebooks --render`; not in the copy:\n{absent[0]}"
