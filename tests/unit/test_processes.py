import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfserve.boot.processes import Processes, describe
from hfserve.logs import for_people

PATIENCE = 10


def supervise(life, sink=None):
    """Run a supervisor's life over real processes; the events they printed."""
    events = []

    async def main():
        processes = Processes(sink or events.append)
        await asyncio.wait_for(life(processes), PATIENCE)
        await processes.heard()

    asyncio.run(main())
    return events


def start(processes, script, *arguments, name="child", **options):
    """A child that runs a script of the shell."""
    return processes.start(name, ["bash", "-c", script, "bash", *arguments], environment=dict(os.environ), **options)


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not (found := condition()):
            await asyncio.sleep(0.005)
        return found


def exists(pid):
    """Whether a process is there, be it as a zombie that nobody has reaped."""
    return Path(f"/proc/{pid}").exists()


def said(events):
    return [event["event"] for event in events]


def run(script, **options):
    async def life(processes):
        statuses.append(await start(processes, script, **options).ended)

    statuses = []
    return supervise(life), statuses[0]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)]
)
def test_an_exit_status_is_seen(script, status):
    assert run(script) == ([], status)


def test_what_a_child_prints_is_folded_into_the_log():
    printed = {"time": "t", "level": "error", "source": "worker-0", "event": "ready", "lanes": 2}
    script = (
        f"""printf '%s\\n' '{json.dumps(printed)}' 'plain words' '' '  indented'; echo complaint >&2; printf 'no end'"""
    )
    events, _ = run(script, name="mms", source="java")
    assert events[0] == printed
    assert said(events[1:]) == ["plain words", "  indented", "complaint", "no end"]
    assert {(event["source"], event["level"]) for event in events[1:]} == {("java", "info")}


def test_bytes_that_are_no_text_are_shown_as_such():
    events, _ = run(r"printf 'a\377b\n'")
    assert said(events) == ["a�b"]


def test_a_line_without_end_is_told_in_pieces_and_nothing_is_lost():
    events, _ = run("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after")
    assert "".join(said(events)) == "x" * 3_000_000 + "after"
    assert said(events)[-1] == "after"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026/11/21 08:00:00 [emerg] 7#7: no port", "error"),
        ("2026/11/21 08:00:00 [warn] 7#7: hm", "warning"),
        ("ERROR ModelServer: broken", "error"),
        ("WARN ModelServer: hm", "warning"),
        ("INFO ModelServer: errors: none", "info"),
    ],
)
def test_the_level_that_nginx_or_java_names_is_kept(line, level):
    (event,), _ = run(f"echo '{line}'")
    assert (event["event"], event["level"]) == (line, level)


@pytest.mark.parametrize(
    "line", ['{"event": "x", "time": 5}', '{"event": "x", "level": 30}', '{"a":' * 50_000 + "1" + "}" * 50_000], ids=len
)
def test_nothing_that_a_child_prints_makes_us_deaf_to_what_follows(line, tmp_path):
    (tmp_path / "line").write_text(line + "\n")
    shown = []

    async def life(processes):
        assert await start(processes, "cat $1; echo after", str(tmp_path / "line")).ended == 0

    supervise(life, lambda event: shown.append(for_people(event)))
    assert shown and shown[-1].endswith("after")


def test_several_children_are_told_apart():
    async def life(processes):
        children = [start(processes, f"echo {n}; exit {n}", name=f"child-{n}") for n in range(5)]
        assert [await child.ended for child in children] == [0, 1, 2, 3, 4]
        assert not any(child.running for child in children)

    events = supervise(life)
    assert sorted((event["source"], event["event"]) for event in events) == [(f"child-{n}", f"{n}") for n in range(5)]


def test_a_child_gets_its_environment_its_directory_its_descriptors_and_no_input(tmp_path):
    reading, writing = os.pipe()
    script = 'echo "$WHO $(pwd)"; echo through >&$1; cat; echo "input ended"'

    async def life(processes):
        child = processes.start(
            "child", ["bash", "-c", script, "bash", str(writing)], cwd=tmp_path, pass_fds=[writing],
            environment={"WHO": "me", "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert await child.ended == 0

    events = supervise(life)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"through\n"
    assert said(events) == [f"me {tmp_path.resolve()}", "input ended"]


def test_every_child_leads_a_session_of_its_own():
    async def life(processes):
        child = start(processes, "read never < $1", "/dev/ptmx")
        assert os.getsid(child.pid) == child.pid != os.getsid(0)
        child.kill_session()
        assert await child.ended == -signal.SIGKILL

    supervise(life)


def test_orphans_are_reaped():
    reading, writing = os.pipe()
    orphans = []

    async def life(processes):
        child = start(processes, "cat <&$1 >/dev/null 2>&1 & echo $!", str(reading), pass_fds=[reading])
        assert await child.ended == 0
        await child.heard
        orphan = int(orphans[0]["event"])
        assert exists(orphan)
        os.close(writing)
        await until(lambda: not exists(orphan))

    supervise(life, orphans.append)
    os.close(reading)


@pytest.mark.parametrize(
    "script",
    ["sleep 1000 & echo $!; wait", "set -m; sleep 1000 & echo $!; wait"],
    ids=["its group", "a group of its own"],
)
def test_killing_a_session_kills_what_the_child_started_too(script):
    events = []

    async def life(processes):
        child = start(processes, script)
        await until(lambda: events)
        grandchild = int(events[0]["event"])
        try:
            child.kill_session()
            assert await child.ended == -signal.SIGKILL
            await until(lambda: not exists(grandchild))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(grandchild, signal.SIGKILL)

    supervise(life, events.append)


def test_a_session_whose_leader_has_ended_can_still_be_killed():
    events = []

    async def life(processes):
        child = start(processes, "sleep 1000 >/dev/null 2>&1 & echo $!")
        assert await child.ended == 0
        await child.heard
        grandchild = int(events[0]["event"])
        assert exists(grandchild)
        child.kill_session()
        await until(lambda: not exists(grandchild))
        child.kill_session()

    supervise(life, events.append)


def test_a_child_that_is_asked_to_end_may_do_so_in_its_own_way():
    async def life(processes):
        child = start(processes, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
        await until(lambda: events)
        await child.end(signal.SIGTERM, PATIENCE)
        assert await child.ended == 7

    events = []
    supervise(life, events.append)
    assert said(events) == ["ready", "bye"]


def test_a_child_that_does_not_end_is_killed():
    async def life(processes):
        child = start(processes, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await until(lambda: events)
        before = time.monotonic()
        await child.end(signal.SIGTERM, 0.05)
        assert await child.ended == -signal.SIGKILL
        assert time.monotonic() - before < PATIENCE / 2
        child.signal(signal.SIGTERM)  # to one that has ended, a signal is nothing

    events = []
    supervise(life, events.append)


PARENT = """
import asyncio, os, sys
from hfserve.boot.processes import Processes

async def main():
    processes = Processes(lambda event: None)
    child = processes.start("child", ["sleep", "1000"], environment=dict(os.environ))
    print(child.pid, flush=True)
    await child.ended

asyncio.run(main())
"""


def test_a_child_dies_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()

    async def ended():
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        loop.add_reader(child, seen.set_result, None)
        await asyncio.wait_for(seen, PATIENCE)
        loop.remove_reader(child)

    asyncio.run(ended())
    os.close(child)


@pytest.mark.parametrize(
    ("status", "words"), [(0, "exit status 0"), (3, "exit status 3"), (-9, "signal SIGKILL"), (-99, "signal 99")]
)
def test_a_status_is_told_in_words(status, words):
    assert describe(status) == words
