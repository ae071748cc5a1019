"""A Hub of one's own: the part of its HTTP interface that downloading a model needs, on a free port of this machine.

with Hub({"org/model": directory, "org/model@v2": other}) as hub:
    environment = hub.environment(home)
    hub.cut_once("model.safetensors", after=1000)
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt")
PIECE = 1 << 20
API = re.compile(r"/api/models/(?P<repo>.+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
FILE = re.compile(r"/(?P<repo>.+?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class Hub:
    """Serves `repos`, {"org/model" or "org/model@revision": directory}, to those who have `token`, if one is given.

    What is `gated` can be listed by everyone and downloaded with the token only.
    """

    def __init__(self, repos: dict[str, Path], *, token: str | None = None, gated: tuple[str, ...] = ()) -> None:
        self.repos = {name if "@" in name else f"{name}@main": directory for name, directory in repos.items()}
        self.token = token
        self.gated = gated
        self.asked: list[Asked] = []
        self.refusals: list[int] = []
        self.pause_s = 0.0
        self._cuts: dict[str, int] = {}

    def __enter__(self) -> "Hub":
        hub = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Handler", (_Handler,), {"hub": hub}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that make a child process ask this Hub and cache under `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}

    def cut_once(self, name: str, after: int) -> None:
        """The next download of this file loses its connection after so many bytes."""
        self._cuts[name] = after

    def refuse(self, status: int, times: int = 1) -> None:
        """The next questions about a model are answered with this status."""
        self.refusals += [status] * times

    def slow(self, pause_s: float) -> None:
        """Wait so long after each piece of 1 MiB."""
        self.pause_s = pause_s

    def downloads(self) -> list[str]:
        """The files whose content was asked for, in order."""
        found = [FILE.fullmatch(asked.path) for asked in self.asked if asked.method == "GET"]
        return [match["name"] for match in found if match]

    def commit(self, repo: str, revision: str = "main") -> str:
        """The commit that a branch or tag stands for."""
        return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()

    def find(self, repo: str, revision: str, authorization: str) -> tuple[str, Path]:
        """The commit and directory of a revision, for those who may see them."""
        private = self.token is not None and repo not in self.gated
        seen = not private or authorization == f"Bearer {self.token}"
        if not seen or not any(name.startswith(f"{repo}@") for name in self.repos):
            raise Refusal(404 if authorization else 401, "RepoNotFound", "Repository not found")
        for name, directory in self.repos.items():
            of, _, at = name.partition("@")
            if of == repo and revision in {at, self.commit(of, at)}:
                return self.commit(of, at), directory
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append(Asked(self.command, path, headers))
        try:
            self._route(path)
        except Refusal as refusal:
            self._refuse(refusal)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _route(self, path: str) -> None:
        if self.hub.refusals and "/api/models/" in path:
            raise Refusal(self.hub.refusals.pop(0), "", "not now")
        if match := FILE.fullmatch(path):
            self._file(match["repo"], match["revision"], match["name"])
        elif match := API.fullmatch(path):
            self._api(match["repo"], match["what"], match["revision"] or "main")
        else:
            raise Refusal(404, "", "no such page")

    def _api(self, repo: str, what: str | None, revision: str) -> None:
        commit, directory = self.hub.find(repo, revision, self._authorization())
        entries = [_entry(directory, file) for file in _files(directory)]
        if what == "tree":
            self._json([{"type": "file", **entry} for entry in entries])
            return
        siblings = [_sibling(entry, whole="blobs" in self.path) for entry in entries]
        self._json({"id": repo, "modelId": repo, "sha": commit, "private": False, "tags": [], "siblings": siblings})

    def _file(self, repo: str, revision: str, name: str) -> None:
        commit, directory = self.hub.find(repo, revision, self._authorization())
        if repo in self.hub.gated and self._authorization() != f"Bearer {self.hub.token}":
            raise Refusal(403 if self._authorization() else 401, "GatedRepo", f"Access to model {repo} is restricted")
        if not (directory / name).is_file():
            raise Refusal(404, "EntryNotFound", "Entry not found")
        entry = _entry(directory, directory / name)
        body = (directory / name).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) - start))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "GET":
            self._send(body[start:], self.hub._cuts.pop(name, None))

    def _send(self, body: bytes, cut: int | None) -> None:
        for at in range(0, len(body[:cut]), PIECE):
            self.wfile.write(body[:cut][at : at + PIECE])
            time.sleep(self.hub.pause_s)
        self.close_connection = self.close_connection or cut is not None

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, refusal: Refusal) -> None:
        body = json.dumps({"error": refusal.message}).encode()
        self.send_response(refusal.status)
        self.send_header("X-Error-Code", refusal.code)
        self.send_header("X-Error-Message", refusal.message)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _authorization(self) -> str:
        return self.headers.get("Authorization", "")


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


def _entry(directory: Path, file: Path) -> dict:
    body = file.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    entry = {"path": file.relative_to(directory).as_posix(), "size": len(body), "oid": oid}
    if file.name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
    return entry


def _sibling(entry: dict, *, whole: bool) -> dict:
    if not whole:
        return {"rfilename": entry["path"]}
    sibling = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
    if lfs := entry.get("lfs"):
        sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return sibling
