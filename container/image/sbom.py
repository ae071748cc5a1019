"""Writes what an image holds as CycloneDX: sbom.py ROOT >sbom.cdx.json, where ROOT is the image's unpacked file system.

Debian's packages, Python's, the Java runtime, and the libraries inside MMS's jar as far as it names them.
"""

import email
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

NETTY = re.compile(r"^([\w-]+)\.version=(.+?)\s*$", re.MULTILINE)
MAVEN = re.compile(r" ([\w.]+):([\w.-]+):jar:(\S+)")


def bill(root: Path) -> Bom:
    """All that was found under the root, inside the image that it is."""
    found = [*_debian(root), *_python(root), *_java(root)]
    version = next(purl.version for purl in found if (purl.type, purl.name) == ("pypi", "hfserve"))
    bom = Bom(components=[_component(purl) for purl in found])
    bom.metadata.component = Component(name="hfserve", version=version, type=ComponentType.CONTAINER, bom_ref="image")
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


def _component(purl: PackageURL) -> Component:
    kind = ComponentType.PLATFORM if purl.name == "openjdk" else ComponentType.LIBRARY
    return Component(
        type=kind, group=purl.namespace, name=purl.name, version=purl.version, purl=purl, bom_ref=str(purl)
    )


def _debian(root: Path) -> Iterator[PackageURL]:
    for paragraph in (root / "var/lib/dpkg/status").read_text().strip().split("\n\n"):
        package = email.message_from_string(paragraph)
        if package["Status"] == "install ok installed":
            yield PackageURL("deb", "debian", package["Package"], package["Version"], {"arch": package["Architecture"]})


def _python(root: Path) -> Iterator[PackageURL]:
    places = sorted(map(str, (root / "opt").glob("*/lib/python3*/site-packages")))
    found: dict[str, Distribution] = {each.metadata["Name"]: each for each in distributions(path=places)}
    for name, distribution in found.items():
        yield PackageURL("pypi", None, name, distribution.version)


def _java(root: Path) -> Iterator[PackageURL]:
    release = dict(line.split("=", 1) for line in (root / "opt/java/release").read_text().splitlines())
    yield PackageURL("generic", None, "openjdk", release["JAVA_VERSION"].strip('"'))
    jar = next((root / "opt").glob("*/lib/python3*/site-packages/mms/frontend/model-server.jar"))
    with zipfile.ZipFile(jar) as archive:
        yield from sorted(_inside(archive), key=str)


def _inside(archive: zipfile.ZipFile) -> set[PackageURL]:
    """What the jar was made of: Netty's parts, and the dependencies told of whose classes are there."""
    found = set()
    names = archive.namelist()
    for entry in archive.infolist():
        if entry.filename == "META-INF/io.netty.versions.properties":
            text = archive.read(entry).decode()
            found |= {PackageURL("maven", "io.netty", name, version) for name, version in NETTY.findall(text)}
        if entry.filename == "META-INF/DEPENDENCIES":
            for group, name, version in MAVEN.findall(archive.read(entry).decode()):
                if any(other.startswith(group.replace(".", "/") + "/") for other in names):
                    found.add(PackageURL("maven", group, name, version))
    return found


def main(root: Path) -> None:
    """Print the bill, if it is what the standard calls one."""
    text = JsonV1Dot6(bill(root)).output_as_string(indent=2)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not CycloneDX: {problem}")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
