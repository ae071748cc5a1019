"""The Terraform module parses, and what it refers to is there. Terraform itself is not run."""

import re
from pathlib import Path

import hcl2
import pytest

MODULE = Path(__file__).parents[2] / "deploy" / "sagemaker" / "terraform"
FILES = sorted(MODULE.glob("*.tf"))
KINDS = {
    "aws_iam_role", "aws_iam_role_policy", "aws_sagemaker_model", "aws_sagemaker_endpoint_configuration",
    "aws_sagemaker_endpoint", "aws_cloudwatch_metric_alarm", "aws_appautoscaling_target", "aws_appautoscaling_policy",
}  # fmt: skip
OURS = re.compile(r"\b(var|local)\.(\w+)|\b((?:data\.)?aws_\w+)\.(\w+)\.\w+")


def parsed(path):
    return hcl2.loads(path.read_text())


def declared():
    """Addresses of all that the module declares."""
    for path in FILES:
        for kind, blocks in parsed(path).items():
            for block in blocks:
                yield from _addresses(kind, block)


def _addresses(kind, block):
    plain = {name.strip('"'): content for name, content in block.items() if not name.startswith("__")}
    if kind == "locals":
        yield from (f"local.{name}" for name in plain)
    elif kind == "variable":
        yield from (f"var.{name}" for name in plain)
    elif kind in ("resource", "data"):
        first = "data." if kind == "data" else ""
        for type_, named in plain.items():
            yield from (f"{first}{type_}.{name.strip(chr(34))}" for name in named if not name.startswith("__"))


def referred():
    for path in FILES:
        for ours, name, type_, instance in OURS.findall(re.sub(r"#.*|\"[^\"$\n]*\"", "", path.read_text())):
            yield f"{ours}.{name}" if ours else f"{type_}.{instance}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_parses(path):
    assert parsed(path)


def test_what_is_referred_to_is_declared_and_what_is_declared_is_used():
    there, used = set(declared()), set(referred())
    assert used <= there, used - there
    unused = {name for name in there - used if name.startswith(("var.", "local.", "data."))}
    assert unused == set()
    assert {name.partition(".")[0] for name in there if name.startswith("aws_")} == KINDS


def test_every_variable_and_output_is_described_and_typed():
    for block in parsed(MODULE / "variables.tf")["variable"]:
        for content in block.values():
            assert isinstance(content, bool) or {"description", "type"} <= set(content)
    for block in parsed(MODULE / "outputs.tf")["output"]:
        assert all(isinstance(content, bool) or "description" in content for content in block.values())


def test_the_policies_are_those_beside_it_and_get_all_their_names():
    text = (MODULE / "main.tf").read_text()
    given = set(re.search(r"policy = \{(.*?)\}", text, re.DOTALL)[1].split()) - {"="}
    for name in re.findall(r"policies/(\w+)\.json", text):
        wanted = set(re.findall(r"\$\{(\w+)\}", (MODULE.parent / "policies" / f"{name}.json").read_text()))
        assert wanted <= given, name
