"""Bidirectional streaming: a WebSocket whose frames are requests, or for `bidi_fn` to answer (contract row 27)."""

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hfserve.codecs import essence
from hfserve.doors.asgi import request_id, response
from hfserve.errors import BadRequest, ModelError, NotReady, Overloaded, ServeError, error_body
from hfserve.logs import request_id as logged_id
from hfserve.messages import JSON, Reply, Request
from hfserve.model import BrokenDevice, HookModel, Model
from hfserve.service import Service
from hfserve.settings import Settings
from hfserve.streaming import LINES

log = logging.getLogger(__name__)

PATH = "/invocations-bidirectional-stream"
LIFE = 29.5 * 60
"""Seconds that a connection lasts at most; SageMaker cuts it after 30 minutes."""
MOST = 256
"""Connections of a worker at a time."""
AHEAD = 1 << 20
"""Bytes of frames that may wait here; whoever sends more has to wait."""
PARTING = 10.0
"""Seconds that an answer gets to end when the time is over, and bidi_fn when its client has gone."""
LOOK = 0.2
"""Seconds between two looks, while there are connections, whether the server is stopping."""
REASON = 123
"""Bytes of the reason in a close frame."""
NOT_FOR_REQUESTS = ("accept", "connection", "content-type", "upgrade", "x-amzn-sagemaker-accept")
"""Headers of the handshake that say nothing of its frames."""

_END = object()

Frame = str | bytes
Answers = AsyncIterator[Frame]


@dataclass(frozen=True, slots=True)
class End:
    """Why a connection ends: what the close frame says, and the seconds that a begun answer still gets.

    Without a code there is nobody left to tell.
    """

    code: int = 0
    reason: str = ""
    patience: float = PARTING


OVER = End(1000, "a connection lasts 30 minutes at most; connect again")
ANSWERED = End(1000, "all is answered")


class Frames:
    """The frames of a client as they come: `async for` runs over them on the event loop, `for` in a thread."""

    def __init__(self) -> None:
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, frame: Frame) -> None:
        """Add a frame, and wait while too many are waiting; after the end none is taken."""
        if self.ended:
            return
        self._waiting.put_nowait(frame)
        self._count(_size(frame))
        await self._room.wait()

    def end(self) -> None:
        """Let the loop over the frames end after those that are here."""
        self.ended = True
        self._waiting.put_nowait(_END)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        frame = await self._next()
        if frame is _END:
            raise StopAsyncIteration
        taken: Frame = frame
        return taken

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        if threading.get_ident() == self._thread:
            raise ModelError("an `async def bidi_fn` reads its frames with `async for`")
        frame = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if frame is _END:
            raise StopIteration
        taken: Frame = frame
        return taken

    async def _next(self) -> Any:
        frame = await self._waiting.get()
        if frame is _END:
            self._waiting.put_nowait(_END)
        else:
            self._count(-_size(frame))
        return frame

    def _count(self, change: int) -> None:
        self._bytes += change
        if self._bytes > AHEAD:
            self._room.clear()
        else:
            self._room.set()


class Conversation:
    """One connection, from the handshake to the close frame.

    When the client goes, what makes the answers gets `parting` seconds to end by itself.
    """

    def __init__(
        self, socket: WebSocket, rid: str, answers: Callable[[Frames], Answers], *, parting: float = 0.0
    ) -> None:
        self._gone = End(patience=parting)
        self._socket = socket
        self._rid = rid
        self._frames = Frames()
        self._answers = answers
        self._told: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def end(self, end: End) -> None:
        """Read no more, and close once what has begun is answered."""
        if not self._told.done():
            self._told.set_result(end)

    async def run(self) -> None:
        """Answer until the client goes, all is answered or an end is told; then close."""
        reading = asyncio.ensure_future(self._read())
        working = asyncio.ensure_future(self._answer())
        clock = asyncio.get_running_loop().call_later(LIFE, self.end, OVER)
        try:
            await asyncio.wait({working, self._told}, return_when=asyncio.FIRST_COMPLETED)
            if self._told.done():
                self._frames.end()
                await asyncio.wait({working}, timeout=self._told.result().patience)
            end = self._told.result() if self._told.done() else working.result()
        finally:
            clock.cancel()
            reading.cancel()
            working.cancel()
            self._frames.end()
        await asyncio.wait({working}, timeout=1)
        if end.code:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.close(end.code, end.reason.encode()[:REASON].decode(errors="ignore"))

    async def _read(self) -> None:
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            await self._frames.put(message["bytes"] if text is None else text)
        self.end(self._gone)

    async def _answer(self) -> End:
        try:
            async with contextlib.aclosing(self._answers(self._frames)) as answers:  # type: ignore[type-var]
                async for answer in answers:
                    await self._send(answer)
            return ANSWERED
        except WebSocketDisconnect:
            return self._gone
        except ServeError as error:
            return await self._failed(error)
        except Exception:
            log.exception("a connection failed unexpectedly")
            return await self._failed(ModelError("the server failed; the log has the traceback"))

    async def _failed(self, error: ServeError) -> End:
        with contextlib.suppress(WebSocketDisconnect):
            await self._send(error_body(error, self._rid).decode())
        return End(1011, f"{type(error).__name__}: {error}")

    async def _send(self, frame: Frame) -> None:
        try:
            await (self._socket.send_text(frame) if isinstance(frame, str) else self._socket.send_bytes(frame))
        except RuntimeError as error:  # a close frame has gone out meanwhile
            raise WebSocketDisconnect(1006) from error


class Bidi:
    """The connections of a worker; `broken` is told when user code leaves a device that can compute no more."""

    def __init__(
        self, service: Service, model: Model, settings: Settings, *, broken: Callable[[str], None] = log.error
    ) -> None:
        self._service = service
        self._talker = model if isinstance(model, HookModel) and model.talks else None
        self._settings = settings
        self._broken = broken
        self._open: dict[asyncio.Task[Any], Conversation] = {}
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What answers at the address: frames, and whoever comes without a WebSocket."""
        return [WebSocketRoute(PATH, self.talk), Route(PATH, _plain, methods=["GET"])]

    async def talk(self, socket: WebSocket) -> None:
        """Serve a connection."""
        rid = request_id(socket.headers)
        if refusal := self._refusal():
            return await socket.send_denial_response(response(Reply.of_error(refusal, rid), rid))
        logged_id.set(rid)
        await socket.accept(headers=[(b"x-request-id", rid.encode())])
        parting = PARTING if self._talker else 0.0
        conversation = Conversation(socket, rid, partial(self._answers, _about(socket, rid)), parting=parting)
        task = asyncio.current_task()
        assert task
        self._open[task] = conversation
        self._looking = self._looking or asyncio.ensure_future(self._look())
        try:
            return await conversation.run()
        finally:
            del self._open[task]

    async def drain(self) -> None:
        """Take no more connections, end those there are, and return when they are closed."""
        self._leave()
        if self._open:
            await asyncio.wait(self._open)

    def _refusal(self) -> ServeError | None:
        if self._stopping:
            return NotReady("the server is stopping; connect to another one")
        if len(self._open) >= MOST:
            return Overloaded(f"{MOST} connections are open already; retry later")
        return None

    def _leave(self) -> None:
        self._stopping = True
        end = End(1001, "the server is stopping; connect again", 0.8 * self._settings.drain_s)
        for conversation in self._open.values():
            conversation.end(end)

    async def _look(self) -> None:
        """nginx holds the connections of a server that stops until they end; a file tells that it does."""
        sign = self._settings.run_dir and self._settings.run_dir / "draining"
        while sign and self._open and not self._stopping:
            await asyncio.sleep(LOOK)
            if sign.exists():
                self._leave()
        self._looking = None

    def _answers(self, about: Request, frames: Frames) -> Answers:
        return self._user(self._talker, frames, about) if self._talker else self._each(frames, about)

    async def _each(self, frames: Frames, about: Request) -> Answers:
        """Every frame is a request of its own, and they are answered one after the other."""
        number = 0
        async for frame in frames:
            number += 1
            rid, deadline = f"{about.request_id}/{number}", time.monotonic() + self._settings.timeout
            reply = await self._service.answer(_request(replace(about, request_id=rid, deadline=deadline), frame))
            if reply.chunks is None:
                yield _shown(reply.body, reply.content_type)
            else:
                async with contextlib.aclosing(reply.chunks) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        if (piece := _piece(chunk, reply.content_type)) is not None:
                            yield piece
            if frames.ended:
                return

    async def _user(self, talker: HookModel, frames: Frames, about: Request) -> Answers:
        """What bidi_fn yields; raises ServeError."""
        try:
            async with contextlib.aclosing(_run(partial(talker.bidi, frames, about))) as answers:  # type: ignore[type-var]
                async for answer in answers:
                    yield _framed(answer)
        except SystemExit as error:
            raise talker.failure(RuntimeError("bidi_fn ended the process")) from error
        except Exception as error:
            told = talker.failure(error)
            if isinstance(told, BrokenDevice):
                self._broken(str(told))
            raise told from error


async def _run(begin: Callable[[], Any]) -> AsyncIterator[Any]:
    """What user code yields: an async generator on the event loop, a plain one in a thread of its own."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "bidi_fn")

    def call(function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        return loop.run_in_executor(thread, contextvars.copy_context().run, function, *arguments)

    close: Callable[[], Any] | None = None
    try:
        source = await call(begin)
        if isinstance(source, AsyncIterator):
            try:
                async for answer in source:
                    yield answer
            finally:
                if aclose := getattr(source, "aclose", None):
                    await aclose()
        elif isinstance(source, Iterator):
            close = getattr(source, "close", None)
            while (answer := await call(next, source, _END)) is not _END:
                yield answer
        else:
            raise ModelError(f"bidi_fn should yield its answers; it returned {type(source).__name__}")
    finally:
        if close:
            thread.submit(close)
        thread.shutdown(wait=False)


def _about(socket: WebSocket, rid: str) -> Request:
    """The handshake, as what all requests of a connection share."""
    headers = {
        name: value
        for name, value in socket.headers.items()
        if name not in NOT_FOR_REQUESTS and not name.startswith(("sec-websocket-", "x-hfserve-"))
    }
    return Request(b"", headers, rid, time.monotonic() + LIFE, socket.url.query, PATH)


def _request(about: Request, frame: Frame) -> Request:
    """A frame as POST /invocations would bring it: text is JSON, bytes are what they look like."""
    if isinstance(frame, str):
        body, kind = frame.encode(), JSON
    else:
        body, kind = frame, "" if _is_text(frame) else "application/octet-stream"
    accept = LINES if _asks_for_stream(body) else ""
    headers = {**about.headers, "content-type": kind, "accept": accept}
    return replace(about, body=body, headers=headers, path="/invocations")


def _asks_for_stream(body: bytes) -> bool:
    if b'"stream"' not in body:
        return False
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(data, dict) and data.get("stream") is True


def _is_text(frame: bytes) -> bool:
    try:
        frame.decode()
    except UnicodeDecodeError:
        return False
    return True


def _piece(chunk: bytes, content_type: str) -> Frame | None:
    """A piece of a stream as a frame, without the newline that parts it from the next; None when nothing is left."""
    if "json" in content_type:
        chunk = chunk.strip(b"\n")
    elif chunk == b"\n" and not content_type.startswith("text/"):
        return None
    return _shown(chunk, content_type) if chunk else None


def _shown(body: bytes, content_type: str) -> Frame:
    """Text where the type says that it is."""
    kind = essence(content_type)
    if kind.startswith("text/") or kind.endswith(("json", "csv")) or "json" in kind:
        with contextlib.suppress(UnicodeDecodeError):
            return body.decode()
    return body


def _framed(answer: Any) -> Frame:
    """What bidi_fn yields as a frame: text, bytes, or any other value as JSON."""
    if isinstance(answer, str | bytes):
        return answer
    if isinstance(answer, bytearray | memoryview):
        return bytes(answer)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _size(frame: Frame) -> int:
    """What a frame takes while it waits, roughly: an empty one is not free."""
    return len(frame) + 64


async def _plain(http: HttpRequest) -> Response:
    rid = request_id(http.headers)
    return response(Reply.of_error(BadRequest(f"{PATH} speaks WebSocket: connect with ws:// or wss://"), rid), rid)
