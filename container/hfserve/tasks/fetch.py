"""Fetches what a request names by URL, where the settings allow it, and never from an address that is not public.

A name is resolved once, all its addresses are checked, and the connection goes to one of them, so that a name which
changes its mind in between gains nothing. Redirects are followed by hand, each checked as the first address was. No
proxy and no credentials of the machine are used.
"""

import contextlib
import functools
import ipaddress
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from hfserve.errors import InvalidInput, PayloadTooLarge, ServeError

LARGEST = 25 << 20
SECONDS = 10.0
REDIRECTS = 3
PIECE = 1 << 16
ON, OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
PORTS = {"http": 80, "https": 443}
NEVER = (ipaddress.IPv4Network("168.63.129.16/32"), ipaddress.IPv4Network("192.0.0.0/24"))
"""Services of clouds to their own machines (Azure, Oracle), which only look public."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
UNICAST = ipaddress.ip_network("2000::/3")

until: ContextVar[float] = ContextVar("until", default=float("inf"))
"""When, on `time.monotonic()`, the request at hand is too late whatever it fetches."""


def is_url(text: str) -> bool:
    """Whether a text is the address of something, rather than the thing itself in base64."""
    return text[:8].lower().startswith(("http://", "https://"))


def fetch(address: str, place: str, allowed: str) -> bytes:
    """What lies at the address; raises InvalidInput or PayloadTooLarge naming the place of the address."""
    if allowed.strip().lower() in OFF:
        raise InvalidInput(
            f"{place} is a URL, and this server fetches none (HFSERVE_ALLOW_URLS); send base64 or a data URL"
        )
    deadline = min(time.monotonic() + SECONDS, until.get())
    try:
        url = httpx.URL(address)
        for _ in range(REDIRECTS + 1):
            content, further = _get(url, allowed, deadline)
            if further is None:
                return content
            url = url.join(further)
    except ServeError as error:
        raise type(error)(f"{place}: {error}") from None
    except (httpx.InvalidURL, UnicodeError):
        raise InvalidInput(f"{place} is not a URL that can be read") from None
    raise InvalidInput(f"{place}: its URL leads to others more than {REDIRECTS} times")


def _get(url: httpx.URL, allowed: str, deadline: float) -> tuple[bytes, str | None]:
    """The content of a URL, or where it says to look instead."""
    _check(url, allowed)
    backend = _Backend(deadline, anywhere=allowed.strip().lower() not in ON)
    headers = {b"Host": url.netloc, b"User-Agent": b"hfserve", b"Accept": b"*/*", b"Accept-Encoding": b"identity"}
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    try:
        with (
            httpcore.ConnectionPool(_trusted(), network_backend=backend) as pool,
            pool.stream("GET", target, headers=list(headers.items())) as response,
        ):
            return _content(response, url.host, deadline)
    except (httpcore.TimeoutException, TimeoutError):
        raise InvalidInput(f"{url.host} took more than {SECONDS:g} seconds") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise InvalidInput(f"{url.host} cannot be asked: {error}") from None


def _content(response: httpcore.Response, host: str, deadline: float) -> tuple[bytes, str | None]:
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    if response.status in {301, 302, 303, 307, 308} and b"location" in headers:
        return b"", headers[b"location"]
    if response.status != 200:
        raise InvalidInput(f"{host} answers with the status {response.status}")
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_stream():
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise PayloadTooLarge(f"what {host} sends is larger than {LARGEST} bytes")
    return b"".join(pieces), None


# What may be asked


def _check(url: httpx.URL, allowed: str) -> None:
    """Raise InvalidInput for a URL that this server does not fetch, as far as its text tells."""
    if url.scheme not in PORTS or not url.host:
        raise InvalidInput("only http and https are fetched")
    port = url.port or PORTS[url.scheme]
    if port > 65535:
        raise InvalidInput(f"{port} is no port")
    if url.userinfo:
        raise InvalidInput("a URL with a user and a password is not fetched")
    if allowed.strip().lower() not in ON and (url.host, port) not in _places(allowed):
        host = url.host[:100]
        raise InvalidInput(f"{host} is not among the hosts that this server fetches from (HFSERVE_ALLOW_URLS)")


@functools.cache
def _places(allowed: str) -> frozenset[tuple[str, int]]:
    """The hosts of the setting with their ports; one without a port has the usual ones."""
    places = [httpx.URL(f"any://{place.strip()}") for place in allowed.split(",") if place.strip()]
    ports = {place: [place.port] if place.port else list(PORTS.values()) for place in places}
    return frozenset((place.host, port) for place in places for port in ports[place])


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, and so is every address that hides in it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in each for each in NEVER)
    translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped
    if translated:
        return is_public(str(translated))
    tunnelled = (each for each in (ip.sixtofour, *(ip.teredo or ())) if each)
    return ip in UNICAST and ip.is_global and all(is_public(str(each)) for each in tunnelled)


# The connection


class _Backend(httpcore.NetworkBackend):
    """Connects to the very address that was checked, and waits for nothing beyond the deadline."""

    def __init__(self, deadline: float, *, anywhere: bool) -> None:
        self._deadline = deadline
        self._anywhere = anywhere
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        """A connection to the first address of the host that takes one; raises InvalidInput when one is not public."""
        addresses = _resolved(host, port, _left(self._deadline))
        if not self._anywhere and not all(map(is_public, addresses)):
            raise InvalidInput(f"{host[:100]} is not a public address, and others are not fetched from")
        for address in addresses:
            with contextlib.suppress(httpcore.ConnectError):
                stream = self._sockets.connect_tcp(address, port, _left(self._deadline))
                return _Stream(stream, self._deadline)
        raise httpcore.ConnectError("no connection")

    def connect_unix_socket(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        """Never asked for by a URL."""
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        """Only retries would sleep, and there are none."""
        raise NotImplementedError


class _Stream(httpcore.NetworkStream):
    """A connection whose every step ends by the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes."""
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All the bytes."""
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        """End it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted, with the host's name checked by its certificate."""
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Stream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """What the connection tells of itself."""
        return self._stream.get_extra_info(info)


def _resolved(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host. A resolver keeps its own time, so it is left behind in a thread when it is slow."""
    found: Future[list[str]] = Future()

    def ask() -> None:
        try:
            told = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result(list(dict.fromkeys(str(each[4][0]) for each in told)))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return found.result(seconds)


def _left(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@functools.cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
