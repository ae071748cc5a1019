"""Which engine serves when a part of it is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

from server import HFSERVE, Server


def without(tmp_path, *programs):
    """A PATH on which everything is but these programs."""
    for directory in {Path(found).parent for name in ("sh", "nginx") if (found := shutil.which(name))}:
        for program in directory.iterdir():
            link = tmp_path / program.name
            if program.name not in programs and not link.exists():
                link.symlink_to(program)
    return f"{Path(sys.executable).parent}:{tmp_path}"


def test_without_java_the_same_is_served_on_asgi_and_one_line_says_so(tmp_path):
    environment = {"PATH": without(tmp_path, "java"), "JAVA_HOME": "", "HFSERVE_ENGINE": "auto"}
    with Server(engine="asgi", **environment) as server:
        assert server.post(json={"inputs": "I love this"}).json()[0]["label"] == "POSITIVE"
        [line] = [line for line in server.lines if "instead of mms" in line["event"]]
        assert "java not found" in line["event"]
        assert "apt-get install" in line["event"]
        assert server.event("starting")["engine"] == "asgi"


def test_an_engine_that_is_asked_for_and_cannot_run_is_exit_3_and_a_command(tmp_path):
    environment = {"PATH": without(tmp_path, "java"), "JAVA_HOME": ""}
    done = subprocess.run(
        [HFSERVE, "serve", "--engine", "mms", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "sudo apt-get install openjdk-17-jre-headless" in done.stdout
