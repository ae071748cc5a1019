"""`hfserve invoke`: one request, its answer printed readably, its status as exit code."""

import json
import mimetypes
import sys
from pathlib import Path

import httpx

ENDINGS = {".jsonl": "application/jsonlines", ".npy": "application/x-npy", ".csv": "text/csv", ".txt": "text/plain"}


def run(body: str | None, file: Path | None, url: str, content_type: str | None, accept: str) -> int:
    """Send it. Exit status 0 for 2xx, 4 for 4xx, 5 for 5xx, 1 when there was no answer."""
    if (body is None) == (file is None):
        print("hfserve: give either a body or --file", file=sys.stderr)
        return 2
    if file and not file.is_file():
        print(f"hfserve: there is no file {file}", file=sys.stderr)
        return 2
    content = file.read_bytes() if file else (body or "").encode()
    headers = {"Content-Type": content_type or _type(file), "Accept": accept}
    address = url if url.rstrip("/").endswith("/invocations") else url.rstrip("/") + "/invocations"
    try:
        with httpx.stream("POST", address, content=content, headers=headers, timeout=None, trust_env=False) as reply:
            print(
                f"{reply.status_code} {reply.reason_phrase} · {reply.headers.get('content-type', '')}", file=sys.stderr
            )
            _show(reply)
            return 0 if reply.is_success else reply.status_code // 100
    except httpx.HTTPError as error:
        print(f"hfserve: no answer from {address}: {error}; is `hfserve serve` running there?", file=sys.stderr)
        return 1


def _show(reply: httpx.Response) -> None:
    """JSON indented; text as it comes; anything else as it is, unless a person would see it."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json":
        content = reply.read()
        try:
            print(json.dumps(json.loads(content), indent=2, ensure_ascii=False))
        except ValueError:
            print(content.decode("utf-8", "replace"))
    elif kind.startswith("text/") or "json" in kind:
        for text in reply.iter_text():
            print(text, end="", flush=True)
        print()
    elif sys.stdout.isatty():
        print(f"({len(reply.read())} bytes of {kind}; send them to a file with > NAME)")
    else:
        for chunk in reply.iter_bytes():
            sys.stdout.buffer.write(chunk)


def _type(file: Path | None) -> str:
    if file is None:
        return "application/json"
    return ENDINGS.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
