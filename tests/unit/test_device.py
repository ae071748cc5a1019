import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from hfserve.runtimes import device
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.device import _quota_v1, _quota_v2


@pytest.mark.parametrize(
    ("content", "quota"),
    [
        ("150000 100000\n", 1.5),
        ("400000 100000\n", 4.0),
        ("5000 100000\n", 0.05),
        ("max 100000\n", None),
        ("max\n", None),
        ("", None),
        ("nonsense here\n", None),
    ],
)
def test_version_2_of_cgroups_says_quota_and_period_in_a_line(tmp_path, content, quota):
    (tmp_path / "cpu.max").write_text(content)
    assert _quota_v2(tmp_path) == quota


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [("200000\n", "100000\n", 2.0), ("50000\n", "100000\n", 0.5), ("-1\n", "100000\n", None), ("", "", None)],
)
def test_version_1_of_cgroups_says_them_in_two_files(tmp_path, quota, period, cores):
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text(period)
    assert _quota_v1(tmp_path) == cores


def test_without_cgroups_there_is_no_quota(tmp_path):
    assert _quota_v1(tmp_path) is None and _quota_v2(tmp_path) is None
    (tmp_path / "cpu.cfs_quota_us").write_text("200000")
    assert _quota_v1(tmp_path) is None


def test_there_is_at_least_one_core_and_never_more_than_this_process_may_use():
    assert 1 <= device.cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (8, 1), (9, 2), (16, 2), (17, 3), (64, 8)])
def test_there_are_more_processes_where_one_has_too_many_lanes_and_each_has_its_share(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(device, "_quota_v2", lambda _: None)
    monkeypatch.setattr(device, "_quota_v1", lambda _: None)
    monkeypatch.setattr(device, "gpus", lambda: 4)
    assert device.processes("cpu") == workers
    assert device.processes("auto") == device.processes("cuda") == 4 and device.processes("cuda:1") == 1
    monkeypatch.setattr(device, "gpus", lambda: 0)
    assert device.processes("auto") == workers and device.processes("cuda") == device.processes("mps") == 1
    memory = device.free_memory()
    monkeypatch.setattr(device, "_shared", 1)
    device.divide(workers)
    assert device.cores() == device.at_once("cpu").lanes == cores // workers
    assert device.free_memory() < memory / workers * 1.5
    device.divide(2 * cores)
    assert device.cores() == 1


def test_a_device_that_is_named_is_taken_at_its_word():
    assert device.choose("cpu", 3) == "cpu"
    assert device.choose("cuda:1", 0) == "cuda:1"


def test_a_worker_runs_a_lane_a_core_on_cpu_and_two_on_a_gpu_with_larger_batches():
    assert device.at_once("cpu") == (device.cores(), 32, 256)
    assert device.at_once("cuda:1") == device.at_once("cuda") == (2, 64, runtime.MOST_TOKENS)
    assert device.at_once("mps").lanes == 1


def test_what_is_put_on_the_cpu_is_there_and_a_lane_needs_no_stream():
    place = torch.device("cpu")
    tensor = torch.arange(3)
    assert device.put(tensor, place) is tensor
    with device.lane(place) as stream:
        assert stream is None


class OnGpu:
    """Notes what is asked of torch where there is no GPU to ask."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.numbers = itertools.count()
        monkeypatch.setattr(torch.cuda, "Stream", self.stream)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda place: f"default of {place}")
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)

    def stream(self, place):
        name = f"stream {next(self.numbers)} of {place}"
        return SimpleNamespace(name=name, wait_stream=lambda other: self.asked.append((name, other)))


def test_each_thread_has_a_stream_on_each_gpu_that_begins_after_the_default_one(monkeypatch):
    gpu = OnGpu(monkeypatch)
    first, second = torch.device("cuda:0"), torch.device("cuda:1")

    def names():
        found = []
        for place in (first, second, first):
            with device.lane(place) as stream:
                found.append(stream.name)
        return found

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        mine, theirs = one.submit(names).result(), other.submit(names).result()
    assert mine == ["stream 0 of cuda:0", "stream 1 of cuda:1", "stream 0 of cuda:0"]
    assert not {*mine} & {*theirs}
    assert [after for _, after in gpu.asked] == ["default of cuda:0", "default of cuda:1", "default of cuda:0"] * 2
