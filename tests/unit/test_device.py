import os

import pytest

from hfserve.runtimes import device
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


def test_a_device_that_is_named_is_taken_at_its_word():
    assert device.choose("cpu", 3) == "cpu"
    assert device.choose("cuda:1", 0) == "cuda:1"
