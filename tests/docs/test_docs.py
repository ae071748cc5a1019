"""The documentation cannot lie: what it lists exists, what it shows compiles, and what it answers is answered so."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfserve import artifacts, schema, settings
from hfserve.errors import ServeError
from hfserve.hooks import HOOKS
from hfserve.tasks.table import TASKS
from server import HFSERVE, Server

ROOT = Path(__file__).parent.parent.parent
NOT_OURS = {"node_modules", "site-packages", "shared", "build", "dist"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in NOT_OURS for part in page.relative_to(ROOT).parts)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def read(name):
    return (ROOT / name).read_text()


def names(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def anchors(page):
    """The names by which a page's headings are linked to."""
    text = BLOCK.sub("", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def kept_tests() -> Iterator[str]:
    for file in (ROOT / "tests").glob("*/test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name


# Pages that are written from the code


def test_the_page_of_settings_is_the_one_that_the_settings_write():
    assert read("docs/settings.md") == settings.markdown(), "make docs writes it"


def test_the_page_of_tasks_is_the_one_that_the_table_writes():
    assert read("docs/tasks.md") == schema.markdown_of(TASKS.values()), "make docs writes it"


def test_every_hook_and_its_arguments_are_explained():
    explained = read("docs/hooks.md")
    for name, takes in HOOKS.items():
        assert f"`{name}({', '.join(takes)})`" in explained
        assert name in read("README.md")


def test_every_error_that_a_hook_may_raise_is_named():
    import hfserve

    for error in ServeError.__subclasses__():
        if hasattr(hfserve, error.__name__):
            assert error.__name__ in read("docs/hooks.md")


def test_every_command_is_in_the_readme():
    from hfserve.cli import _parser

    [commands] = [action.choices for action in _parser()._actions if action.choices]
    for name, command in commands.items():
        assert f"`hfserve {name}" in read("README.md")
        [row] = [line for line in read("README.md").splitlines() if line.startswith(f"| `hfserve {name}")]
        for flag in re.findall(r"--[\w-]+", row):
            assert flag in command.format_help(), f"hfserve {name} takes no {flag}"


def test_every_room_is_on_the_map():
    package = ROOT / "container" / "hfserve"
    rooms = {path.name for path in package.iterdir() if not path.name.startswith("__")} - {"demo", "py.typed"}
    drawn = read("docs/architecture.md")
    for room in rooms:
        assert f"`{room}" in drawn, f"{room} is missing in docs/architecture.md"
    for shown in re.findall(r"`([\w/]+(?:\.py|/))`", drawn):
        assert any(package.rglob(shown.rstrip("/"))) or (ROOT / shown).exists(), f"there is no {shown}"


# The contract


def rows():
    """The rows of the contract's table: number, and the tests it cites."""
    for line in read("docs/contract.md").splitlines():
        number, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if number.isdigit():
            yield int(number), re.findall(r"`(test_\w+)`", cells[-1])


def test_every_promise_of_the_contract_stands_once():
    numbers = [number for number, _ in rows()]
    assert len(numbers) > 20
    assert numbers == sorted(set(numbers))


def test_every_promise_of_the_contract_is_shown_by_a_test_that_exists():
    there = set(kept_tests())
    cited = set(re.findall(r"`(test_\w+)`", read("docs/contract.md")))
    assert cited <= there, f"cited, and not there: {sorted(cited - there)}"
    assert [number for number, tests in rows() if not tests] == []


# Pages that people write


def test_the_pages_are_there():
    for page in ("README.md", "CHANGELOG.md", "docs/architecture.md", "docs/contract.md", "docs/hooks.md"):
        assert ROOT / page in PAGES
    decisions = [page.name for page in PAGES if page.parent.name == "decisions"]
    assert [name[:4] for name in decisions] == [f"{i + 1:04d}" for i in range(len(decisions))] != []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_leads_to_something(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{names(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{names(target)} has no heading {anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "notebooks"], ids=names)
def test_every_block_of_python_compiles(page):
    """Those of notebooks are run, and may be IPython's."""
    for source in blocks(page, "python"):
        compile(source, names(page), "exec")


def test_the_hooks_that_the_readme_shows_are_free_of_mistakes(tmp_path):
    from hfserve import hooks

    shown = [source for source in blocks(ROOT / "README.md", "python") if source.startswith("# code/inference.py")]
    assert shown
    for i, source in enumerate(shown):
        code = tmp_path / str(i) / "code"
        code.mkdir(parents=True)
        (code / "inference.py").write_text(source)
        assert hooks.problems(code, "inference.py", None) == []


def test_the_readme_names_no_variable_that_is_not_read():
    known = {variable for field in settings.Settings.model_fields.values() for variable in settings.names(field)}
    ours = re.compile(r"\b(?:HFSERVE|SAGEMAKER|HF)_[A-Z_]+\b")
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert set(ours.findall(page.read_text())) <= known | {"HFSERVE_"}, names(page)


def test_the_answer_that_the_readme_shows_is_the_one_that_is_given():
    [console] = [block for block in blocks(ROOT / "README.md", "console") if "curl" in block]
    command, shown = re.search(r"^\$ (curl .*)\n(.*)$", console, re.MULTILINE).groups()
    _, _, body, _, header, address = shlex.split(command)
    assert address.endswith(":8080/invocations")
    name, _, value = header.partition(": ")
    with Server(engine="asgi") as server:
        reply = server.post(body, headers={name: value})
    [answer], [expected] = reply.json(), json.loads(shown)
    assert answer["label"] == expected["label"] == "POSITIVE"
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert list(answer) == list(expected)
    assert re.sub(r"[\d.]+", "", reply.text) == re.sub(r"[\d.]+", "", shown)


def test_the_makefile_has_what_the_readme_calls():
    makefile = read("Makefile")
    for target in set(re.findall(r"`(?:\w+=\S+ )*make ([\w-]+)", "\n".join(page.read_text() for page in PAGES))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_a_demo_model_comes_with_the_code():
    assert (artifacts.DEMO / "model.safetensors").is_file()
    assert Path(HFSERVE).is_file()
