"""The parts of a server of many models, each alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hfserve import openapi
from hfserve.boot import memory
from hfserve.boot.catalogue import Catalogue
from hfserve.boot.management import routes
from hfserve.boot.nginx import configuration
from hfserve.boot.processes import memory as held
from hfserve.boot.processes import private_memory
from hfserve.errors import SettingsError
from hfserve.metrics import SupervisorMetrics, exposition, forget
from hfserve.runtimes import device
from hfserve.settings import MIB, Settings


def a_model(place, *files, size=0):
    place.mkdir(parents=True)
    for name in files or ("config.json",):
        (place / name).write_bytes(b"x" * size)
    return place


# What may be loaded on demand


def test_a_directory_of_models_is_looked_at_anew(tmp_path):
    a_model(tmp_path / "one")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    catalogue = Catalogue(str(tmp_path))
    assert catalogue.names() == {"one": str(tmp_path / "one")}
    assert catalogue.find("two") is None
    a_model(tmp_path / "two")
    assert catalogue.find("two") == ("two", str(tmp_path / "two"))


def test_models_are_named_by_their_directory_or_by_hand(tmp_path):
    first, second = a_model(tmp_path / "first"), a_model(tmp_path / "second", "model_index.json")
    (second / "unet").mkdir()
    (second / "unet" / "config.json").write_text("{}")
    catalogue = Catalogue(f"{first}, other={second}, org/hub-model, my={'gpt2'}")
    assert catalogue.names() == {
        "first": str(first),
        "other": str(second),
        "org/hub-model": "org/hub-model",
        "my": "gpt2",
    }
    assert catalogue.find("org/hub-model") == ("org--hub-model", "org/hub-model")
    assert Catalogue(str(second)).names() == {"second": str(second)}


@pytest.mark.parametrize(
    "written", ["/nowhere", "a=./nowhere", "a=/tmp,a=/usr", "a b=/tmp", ",", "a=../nowhere", "é=/tmp"]
)
def test_what_cannot_be_a_model_is_said(written):
    with pytest.raises(SettingsError, match="HFSERVE_MODELS"):
        Catalogue(written)


# Memory


def test_a_model_needs_its_weights_for_each_worker(tmp_path):
    both = a_model(tmp_path / "both", "model.safetensors", "pytorch_model.bin", "config.json", size=MIB)
    pickled = a_model(tmp_path / "pickled", "pytorch_model.bin", size=2 * MIB)
    nested = a_model(tmp_path / "nested" / "unet", "a.safetensors", "b.safetensors", size=MIB).parent
    hooks = a_model(tmp_path / "hooks" / "code", "inference.py").parent

    def weights(place, workers=1):
        return memory.needed(place, workers=workers, alone=False) / workers - memory.OVERHEAD

    assert weights(both) == weights(both, 3) == int(MIB * memory.GROWTH)
    assert weights(pickled) == weights(nested) == int(2 * MIB * memory.GROWTH)
    assert weights(hooks) == 0
    assert memory.needed(hooks, workers=2, alone=True) == 2 * (memory.OVERHEAD + memory.ALONE)


def test_the_limit_of_a_cgroup_counts_without_files_that_nobody_needs(tmp_path, monkeypatch):
    for name, content in {
        "memory.max": str(900 * MIB), "memory.current": str(800 * MIB),
        "memory.stat": f"anon 1\ninactive_file {300 * MIB}\nactive_file 7\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(device, "CGROUPS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file "),))
    assert device.free_memory(with_files=True) == 400 * MIB
    (tmp_path / "memory.max").write_text("max")
    assert device.free_memory(with_files=True) > 400 * MIB


def test_what_a_process_holds_alone_is_less_than_what_it_holds():
    script = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert 64 * MIB <= private_memory(child.pid) <= held(child.pid) + MIB
        child.stdin.close()
    assert held(child.pid) == private_memory(child.pid) == 0


# Figures


COUNT = """
import sys
from prometheus_client import CollectorRegistry
from hfserve.metrics import WorkerMetrics
metrics = WorkerMetrics("custom", CollectorRegistry())
metrics.requests.labels("custom", "200").inc(int(sys.argv[1]))
metrics.request_seconds.observe(0.5)
metrics.in_flight.inc()
import os
print(os.getpid())
"""


def test_what_dead_workers_counted_stays_in_few_files(tmp_path):
    for number in (1, 2, 3):
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        argv = [sys.executable, "-c", COUNT, str(number)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        if number < 3:
            forget(tmp_path, int(done.stdout))
    text = exposition(SupervisorMetrics(), tmp_path).decode()
    assert 'hfserve_requests_total{status="200",task="custom"} 6.0' in text
    assert "hfserve_request_seconds_count 3.0" in text
    assert 'hfserve_request_seconds_bucket{le="0.25"} 0.0' in text
    assert 'hfserve_request_seconds_bucket{le="0.5"} 3.0' in text
    assert "hfserve_requests_in_flight 1.0" in text
    forget(tmp_path, int(done.stdout))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_0.db", "histogram_0.db"]
    assert "hfserve_request_seconds_count 3.0" in exposition(SupervisorMetrics(), tmp_path).decode()


# What is at which address


@pytest.mark.parametrize(
    ("environment", "addresses"),
    [
        ({"multi_model": True}, {"/models", "/models/{name}", "/models/{name}/invoke"}),
        ({"models": "/srv"}, {"/models", "/models/{name}", "/models/{name}/invoke", "/predict"}),
    ],
)
def test_what_is_served_is_described(environment, addresses):
    settings = Settings.read(**environment)
    served = {(route.path, method) for route in routes(None, settings) for method in route.methods - {"HEAD"}}
    document = openapi.many(managed=settings.multi_model, on_demand=bool(settings.models))
    described = {
        (path.replace("model_name", "name"), method.upper())
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert {path for path, _ in served} == addresses
    assert served == {each for each in described if each[0] in addresses}
    assert described - served == {("/ping", "GET"), ("/metrics", "GET")}
    assert ("/models", "POST") in served or not settings.multi_model


def test_the_paths_of_sockets_stay_short_whatever_the_name():
    longest = Path("x" * 76)
    text = configuration(Settings.read(multi_model=True), longest, port=0, workers=100, mms=True)
    name = "n" * 80
    for line in text.splitlines():
        if "unix:names/" in line:
            socket = line.partition("unix:")[2].partition(":")[0].replace("$name", name).replace("$1", "99")
            assert len(socket) <= 107
    assert len(f"{longest}/models/123456/worker-99.sock") <= 107


def test_metrics_of_models_need_no_worker():
    from hfserve.metrics import ModelsMetrics

    registry = CollectorRegistry()
    figures = ModelsMetrics(registry)
    figures.memory.labels("one").set(5)
    assert registry.get_sample_value("hfserve_model_memory_bytes", {"model": "one"}) == 5
