"""What a request names by URL is fetched where the operator allows it, and never from inside."""

import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hfserve.errors import InvalidInput, PayloadTooLarge
from hfserve.tasks import fetch

ANYWHERE = "1"


class Site(BaseHTTPRequestHandler):
    """Pages, redirects, and bodies that never end."""

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        what, _, rest = self.path[1:].partition("/")
        try:
            getattr(self, what)(rest)
        except OSError:
            self.close_connection = True

    def page(self, rest):
        self._begin(200, {"Content-Length": str(len(rest))})
        self.wfile.write(rest.encode())

    def to(self, rest):
        self._begin(302, {"Location": rest, "Content-Length": "0"})

    def missing(self, rest):
        self._begin(404, {"Content-Length": "0"})

    def endless(self, rest):
        self._begin(200, {})
        while True:
            self.wfile.write(b"x" * 65536)

    def slow(self, rest):
        self._begin(200, {})
        while not self.server.stopped.wait(0.02):
            self.wfile.write(b"x")

    def headers_without_end(self, rest):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.stopped.wait(0.02):
            self.wfile.write(b"X-A: b\r\n")

    def garbage(self, rest):
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    def _begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_deadline():
    """Whatever request this process has read before."""
    fetch.until.set(float("inf"))


@pytest.fixture
def site():
    """A site on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen, server.stopped, server.daemon_threads = [], threading.Event(), True
    server.place = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def resolves(monkeypatch):
    """Names that resolve to what the test says, each time to the next."""
    known = {}
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **options):
        if host not in known:
            return real(host, port, *args, **options)
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [info for address in addresses for info in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def reached(monkeypatch):
    """The addresses to which a connection was tried; all of them fail."""
    tried = []

    def connect(address, *args, **options):
        tried.append(address[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def refused(url, allowed=ANYWHERE, kind=InvalidInput):
    with pytest.raises(kind, match=r"^inputs\[1\]") as caught:
        fetch.fetch(url, "inputs[1]", allowed)
    return str(caught.value)


# What may be asked


@pytest.mark.parametrize("allowed", ["", "0", "false", "Off", " "])
def test_nothing_is_fetched_unless_it_is_allowed(site, allowed):
    assert "HFSERVE_ALLOW_URLS" in refused(f"http://{site.place}/page/a", allowed)
    assert not site.seen


def test_a_host_that_the_operator_named_may_be_an_internal_one(site):
    assert fetch.fetch(f"http://{site.place}/page/cat?a=b#c", "inputs", f"example.com, {site.place}") == b"cat?a=b"
    (_, headers) = site.seen[0]
    assert headers["Host"] == site.place and not {"Authorization", "Cookie"} & headers.keys()


@pytest.mark.parametrize(
    "allowed", ["127.0.0.1", "example.com", "127.0.0.1:1", "localhost:{port}", "example.com,[::1]"]
)
def test_only_the_hosts_and_ports_that_were_named_are_asked(site, allowed):
    message = refused(f"http://{site.place}/page/a", allowed.format(port=site.server_port))
    assert "not among the hosts" in message and not site.seen


def test_a_host_without_a_port_has_the_usual_ports():
    assert fetch._places("Example.com, [::1]:8080") == {("example.com", 80), ("example.com", 443), ("::1", 8080)}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:secret@example.com/", "user and a password"),
        ("http://user@example.com/", "user and a password"),
        ("http:///path", "only http and https"),
        ("http://[::1", "not a URL"),
        ("http://a..b/", "not a URL"),
        ("http://example.com:99999999/", "99999999 is no port"),
        (f"http://{'a' * 70}.com/", "not a URL"),
    ],
)
def test_an_odd_url_is_refused(reached, url, words):
    message = refused(url)
    assert words in message and "secret" not in message and not reached


@pytest.mark.parametrize("text", ["http://a", "HTTPS://a", "hTTp://"])
def test_a_url_is_known_by_its_beginning(text):
    assert fetch.is_url(text)


@pytest.mark.parametrize("text", ["", "cat.png", "file:///etc/passwd", "ftp://a", "data:,a", "http", "iVBORw0KGgo"])
def test_all_else_is_no_url(text):
    assert not fetch.is_url(text)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "4000::1", "fec0::1",
    ],
)  # fmt: skip
def test_an_address_inside_is_not_public(address):
    assert not fetch.is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_an_address_of_the_internet_is_public(address):
    assert fetch.is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "017700000001", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]",
             "localhost"]
)  # fmt: skip
def test_no_spelling_of_this_machine_is_asked(reached, host):
    refused(f"http://{host}/")
    assert not reached


@pytest.mark.parametrize("addresses", [["10.0.0.5"], ["93.184.216.34", "10.0.0.5"], ["2606:4700::1111", "::1"]])
def test_a_name_with_an_address_inside_is_not_asked(resolves, reached, addresses):
    resolves["evil.test"] = [addresses]
    assert "evil.test is not a public address" in refused("http://evil.test/")
    assert not reached


def test_the_address_that_was_checked_is_the_one_asked(resolves, reached):
    """A name that answers anew with an address inside is not asked again."""
    resolves["rebind.test"] = [["93.184.216.34", "2606:4700::1111"], ["127.0.0.1"]]
    refused("http://rebind.test/")
    assert reached == ["93.184.216.34", "2606:4700::1111"] and len(resolves["rebind.test"]) == 1


def test_a_proxy_of_the_machine_is_not_used(site, monkeypatch, resolves, reached):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{site.place}")
    resolves["far.test"] = [["93.184.216.34"]]
    refused("http://far.test/")
    assert reached == ["93.184.216.34"] and not site.seen


# Redirects


def test_redirects_are_followed_a_few_times(site):
    assert fetch.fetch(f"http://{site.place}/to//to//page/cat", "inputs", site.place) == b"cat"
    loop = f"http://{site.place}/to/" + "/to/" * fetch.REDIRECTS + "/page/cat"
    assert f"more than {fetch.REDIRECTS} times" in refused(loop, site.place)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://localhost/", "not among the hosts"),
        ("http://169.254.169.254/latest/meta-data", "not among the hosts"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://127.0.0.1/", "only http and https"),
        ("//user:a@example.com/", "user and a password"),
    ],
)
def test_a_redirect_is_checked_as_the_first_address_was(site, target, words):
    assert words in refused(f"http://{site.place}/to/{target}", site.place)
    assert len(site.seen) == 1


def test_a_public_site_leads_to_no_address_inside(site, monkeypatch):
    asked = []

    def is_public(address):
        asked.append(address)
        return len(asked) == 1

    monkeypatch.setattr(fetch, "is_public", is_public)
    assert "localhost is not a public address" in refused(
        f"http://{site.place}/to/http://localhost:{site.server_port}/page/a"
    )
    assert asked[0] == "127.0.0.1" and len(site.seen) == 1


# Limits


def test_a_body_without_end_is_too_large(site, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 200_000)
    assert "larger than 200000 bytes" in refused(f"http://{site.place}/endless", site.place, PayloadTooLarge)


@pytest.mark.parametrize("what", ["slow", "headers_without_end"])
def test_drops_of_a_body_are_not_waited_for(site, monkeypatch, what):
    monkeypatch.setattr(fetch, "SECONDS", 0.3)
    started = time.monotonic()
    assert "took more than 0.3 seconds" in refused(f"http://{site.place}/{what}", site.place)
    assert time.monotonic() - started < 2


def test_a_slow_resolver_is_left_behind(monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: answer.wait(20))
    monkeypatch.setattr(fetch, "SECONDS", 0.1)
    assert "took more than" in refused("http://slow.test/")
    answer.set()


def test_nothing_is_fetched_for_a_request_that_is_too_late(site):
    token = fetch.until.set(time.monotonic() - 1)
    try:
        assert "took more than" in refused(f"http://{site.place}/page/a", site.place)
    finally:
        fetch.until.reset(token)
    assert not site.seen


@pytest.mark.parametrize(("what", "words"), [("missing", "status 404"), ("garbage", "cannot be asked")])
def test_what_is_not_there_is_told(site, what, words):
    assert words in refused(f"http://{site.place}/{what}", site.place)


def test_a_host_that_is_not_there_is_told(resolves):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}"
        assert "127.0.0.1 cannot be asked" in refused(f"http://{place}/", place)
    resolves["nowhere.test"] = [[]]
    assert "nowhere.test cannot be asked" in refused("http://nowhere.test/")


# TLS


@pytest.fixture
def certificate(tmp_path):
    """A certificate for `good.test`, and its key."""
    made = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=good.test", "-addext", "subjectAltName=DNS:good.test", "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


def test_the_name_in_the_url_is_checked_by_the_certificate(site, monkeypatch, resolves, certificate):
    """The connection goes to an address, yet the name is what TLS is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    site.socket = context.wrap_socket(site.socket, server_side=True)
    site.handle_error = lambda *args: None
    resolves.update({"good.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    port = site.server_port
    allowed = f"good.test:{port},other.test:{port}"
    assert "CERTIFICATE_VERIFY_FAILED" in refused(f"https://good.test:{port}/page/a", allowed)
    trusting = ssl.create_default_context(cafile=certificate[0])
    monkeypatch.setattr(fetch, "_trusted", lambda: trusting)
    assert fetch.fetch(f"https://good.test:{port}/page/a", "inputs", allowed) == b"a"
    assert "CERTIFICATE_VERIFY_FAILED" in refused(f"https://other.test:{port}/page/a", allowed)
