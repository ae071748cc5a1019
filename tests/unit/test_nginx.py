import json
import re
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from hfserve import errors
from hfserve.boot import nginx
from hfserve.boot.nginx import PAGES, configuration, writing
from hfserve.settings import Settings

NGINX = nginx.find()
FORMS = {
    "bare": ({}, 1, False),
    "mms": ({}, 1, True),
    "several workers": ({"timeout_s": 2.5, "drain_s": 0}, 5, True),
    "everywhere": ({"host": "0.0.0.0"}, 2, False),
    "IPv6": ({"host": "::1"}, 1, True),
    "large bodies": ({"max_payload_mb": 100, "max_queued": 1}, 1, True),
    "short waits": ({"body_timeout_s": 0.4, "timeout_s": 0.2}, 1, False),
}
PAGE_OF = {page.name: page for page in PAGES}
every_form = pytest.mark.parametrize("form", FORMS)
STATUSES = {
    400: 400, 403: 404, 404: 404, 405: 405, 411: 400, 413: 413, 414: 400, 417: 400, 429: 503, 494: 400, 500: 503,
    502: 503, 503: 503, 504: 504, 505: 400,
}  # fmt: skip
"""What a client is told, by what nginx found."""


def free_port(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def render(form, run_dir, port=8080):
    changes, workers, mms = FORMS[form]
    settings = Settings.read().model_copy(update=changes)
    return configuration(settings, run_dir, port=port, workers=workers, mms=mms)


@pytest.fixture
def run_dir():
    with tempfile.TemporaryDirectory(prefix="hfs-") as directory:
        yield Path(directory)


@every_form
def test_every_place_in_the_template_is_filled(form, run_dir):
    text = render(form, run_dir)
    assert re.findall(r"@\w+@|@@|\0", text) == []
    assert {name for name in re.findall(r"@(\w+)", text) if not re.fullmatch(r"worker\d+", name)} <= set(PAGE_OF)


@every_form
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_accepts_the_configuration(form, run_dir):
    host = FORMS[form][0].get("host", "127.0.0.1")
    try:
        port = free_port(host)
    except OSError:
        pytest.skip(f"{host} cannot be bound here")
    (run_dir / "nginx.conf").write_text(render(form, run_dir, port))
    tried = subprocess.run(
        [NGINX, "-t", "-p", str(run_dir), "-e", "stderr", "-c", str(run_dir / "nginx.conf")],
        capture_output=True,
        text=True,
    )
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr and "[emerg]" not in tried.stderr


@pytest.mark.parametrize(
    ("host", "listen"), [("127.0.0.1", "127.0.0.1:81"), ("::", "[::]:81"), ("0.0.0.0", "0.0.0.0:81")]
)
def test_it_listens_where_it_was_told_to(host, listen, run_dir):
    settings = Settings.read(host=host)
    text = configuration(settings, run_dir, port=81, workers=1, mms=True)
    assert re.findall(r"listen ([^ ;]+)", text) == [listen, f"unix:{run_dir}/nginx.sock"]


def test_each_worker_can_be_reached_by_all_and_by_its_own_name(run_dir):
    text = render("several workers", run_dir)
    (shared,) = re.findall(r"upstream workers \{(.*)\}", text)
    assert re.findall(r"unix:(\S+)", shared) == [f"{run_dir}/worker-{slot}.sock" for slot in range(5)]
    assert re.findall(r"upstream worker(\d) ", text) == list("01234")


def test_small_bodies_go_by_mms_where_there_is_mms(run_dir):
    small = re.compile(r'map \$content_length \$by_size \{ "\S+" (\S+); default (\S+); \}')
    text = render("mms", run_dir)
    to_mms, large = small.search(text).groups()
    assert to_mms != large == "/_asgi"
    assert f"location = {to_mms} {{" in text
    assert small.search(render("bare", run_dir)).groups() == ("/_asgi", "/_asgi")


def test_no_wait_is_rounded_to_none(run_dir):
    waits = dict(re.findall(r"(client_body_timeout|proxy_read_timeout) (\S+);", render("short waits", run_dir)))
    assert waits["client_body_timeout"] not in ("0s", "0ms", "0")


def test_what_nginx_says_by_itself_has_the_one_shape_of_an_error(run_dir):
    text = render("large bodies", run_dir)
    told = re.findall(r"location (?:@|= /_)(\w+) \{[^}]*?return (\d+) '(.*)';", text)
    assert sorted(name for name, _, _ in told) == sorted(PAGE_OF)
    for name, status, body in told:
        error = PAGE_OF[name].error
        content = json.loads(body.replace("\\'", "'"))["error"]
        assert int(status) == content["status"] == error.status
        assert content["type"] == type(error).__name__ and content["request_id"] == "$rid"
        assert content["message"] and not set("{}$") & set(content["message"])
        assert len(body) < errors.MAX_BODY


def test_numbers_of_this_server_stand_in_what_it_says(run_dir):
    text = render("large bodies", run_dir)
    assert f"the body may have {100 << 20} bytes at most" in text
    assert "1 requests are already waiting" in text


def test_every_code_of_nginx_leads_to_one_page_with_the_status_of_its_error():
    found = {code: page.error.status for page in PAGES for code in page.codes}
    assert found == STATUSES
    assert sum(len(page.codes) for page in PAGES) == len(STATUSES)
    assert len(PAGE_OF) == len(PAGES)


def test_who_may_come_again_is_told_when(run_dir):
    text = render("mms", run_dir)
    for page in PAGES:
        if page.error.retry_after is not None:
            (location,) = re.findall(rf"location @{page.name} \{{.*\}}", text)
            assert f"add_header Retry-After {page.error.retry_after} always;" in location
            assert "add_header X-Request-Id $rid always;" in location


@pytest.mark.parametrize(
    ("status", "count"),
    [
        ("Active connections: 9 \nserver accepts\n 1 1 1\nReading: 0 Writing: 4 Waiting: 5 \n", 3),
        ("Active connections: 1 \nserver accepts\n 1 1 1\nReading: 0 Writing: 1 Waiting: 0 \n", 0),
        ("<html>502</html>", 0),
    ],
)
def test_the_page_that_is_asked_is_not_counted_as_work(status, count):
    assert writing(status) == count
