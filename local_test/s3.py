"""S3: a store of objects on a folder, and the door through which SDKs reach it, path-style.

An object is the file `root/bucket/key`; put files there, and they are objects. What a file cannot hold (content type
and metadata) stands beside, in `root/.about`.
"""

import contextlib
import hashlib
import json
import mimetypes
import os
import re
import shutil
import tempfile
import urllib.parse
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO, cast
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from local_test.errors import AwsError
from local_test.wire import PIECE, Answer, Request

_XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_OWNER = "<Owner><ID>local</ID></Owner>"
_MAY_BE_EMPTY = ("prefix", "delimiter", "marker", "start-after", "continuation-token", "encoding-type")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Store:
    """Objects by their URIs, `s3://bucket/key`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, uri: str) -> Path:
        """The file of an object, or the folder of a prefix, whether it is there or not."""
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not _BUCKET.fullmatch(bucket):
            raise FileNotFoundError(f"{uri} does not name an object, as s3://bucket/key does")
        if any(part in (".", "..") for part in key.split("/")):
            raise FileNotFoundError(f"{uri} has a key that cannot be a file's name")
        return self.root / bucket / key.lstrip("/")

    def exists(self, uri: str) -> bool:
        """Whether there is an object; a prefix is none."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(uri).is_file()
        return False

    def get(self, uri: str) -> bytes:
        """An object's content."""
        return self.path(uri).read_bytes()

    def open(self, uri: str) -> BinaryIO:
        """An object's content, to be read piece by piece."""
        return self.path(uri).open("rb")

    def put(self, uri: str, body: bytes) -> None:
        """Write an object, its bucket too if there is none."""
        with self.writer(uri) as file:
            file.write(body)

    @contextlib.contextmanager
    def writer(self, uri: str) -> Iterator[BinaryIO]:
        """A file that becomes the object when the block ends well."""
        path = self.path(uri)
        with tempfile.NamedTemporaryFile(dir=self.hidden("parts"), delete=False) as file:
            try:
                yield cast(BinaryIO, file)
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).chmod(0o644)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(file.name).replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            Path(file.name).unlink()
            raise FileNotFoundError(f"{uri} is a file where another object needs a folder, or the other way") from None

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """The keys of a bucket that begin so, in the order of their bytes."""
        root = self.root / bucket
        within = root / prefix.rpartition("/")[0]
        found = (Path(folder, name) for folder, _, names in os.walk(within) for name in names)
        keys = (path.relative_to(root).as_posix() for path in found)
        return sorted((key for key in keys if key.startswith(prefix)), key=str.encode)

    def hidden(self, name: str) -> Path:
        """A folder beside the buckets that is none."""
        folder = self.root / f".{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def list(self, prefix: str) -> list[str]:
        """The URIs of the objects whose URI begins so, in S3's order."""
        scheme, _, rest = prefix.partition("://")
        bucket, _, key = rest.partition("/")
        return [f"{scheme}://{bucket}/{found}" for found in self.keys(bucket, key)]


class Door:
    """S3's REST API, as far as models and data need it."""

    def __init__(self, store: Store, region: str) -> None:
        self.store, self.region = store, region

    def answer(self, request: Request) -> Answer:
        """Answer a request, or say what is wrong in S3's shape."""
        try:
            return self._answer(request)
        except AwsError as error:
            return _error(error)
        except FileNotFoundError as error:
            return _error(AwsError("InvalidURI", str(error)))

    def _answer(self, request: Request) -> Answer:
        bucket, _, key = request.path.lstrip("/").partition("/")
        if not bucket:
            return self._list_buckets()
        if not _BUCKET.fullmatch(bucket):
            raise AwsError("InvalidBucketName", "The specified bucket is not valid.")
        plain = all(value or name in _MAY_BE_EMPTY for name, value in request.query.items())
        for method, mark, operation in _ON_OBJECT if key else _ON_BUCKET:
            if request.method == method and (mark in request.query if mark else plain):
                return operation(self, request, *([bucket, key] if key else [bucket]))
        raise AwsError("NotImplemented", f"{request.method} {request.path} is not emulated locally", 501)

    def _list_buckets(self) -> Answer:
        buckets = sorted(path.name for path in self.store.root.iterdir() if _BUCKET.fullmatch(path.name))
        listed = "".join(
            f"<Bucket><Name>{name}</Name><CreationDate>{_when(self.store.root / name)}</CreationDate></Bucket>"
            for name in buckets
        )
        return _xml("ListAllMyBucketsResult", f"{_OWNER}<Buckets>{listed}</Buckets>")

    # A bucket

    def _bucket(self, bucket: str) -> Path:
        path = self.store.root / bucket
        if not path.is_dir():
            raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
        return path

    def _create_bucket(self, request: Request, bucket: str) -> Answer:
        (self.store.root / bucket).mkdir(exist_ok=True)
        return Answer(headers={"Location": f"/{bucket}"})

    def _head_bucket(self, request: Request, bucket: str) -> Answer:
        self._bucket(bucket)
        return Answer(headers={"x-amz-bucket-region": self.region})

    def _delete_bucket(self, request: Request, bucket: str) -> Answer:
        path = self._bucket(bucket)
        if self.store.keys(bucket, ""):
            raise AwsError("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        shutil.rmtree(path)
        return Answer(status=204)

    def _location(self, request: Request, bucket: str) -> Answer:
        self._bucket(bucket)
        return _xml("LocationConstraint", "" if self.region == "us-east-1" else self.region)

    def _list(self, request: Request, bucket: str) -> Answer:
        self._bucket(bucket)
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        second = query.get("list-type") == "2"
        after = query.get("continuation-token" if second else "marker") or query.get("start-after", "")
        most = min(int(query.get("max-keys") or 1000), 1000)
        entries: dict[str, bool] = {}
        for key in self.store.keys(bucket, prefix):
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            entry = prefix + head + delimiter if found else key
            if entry > after:
                entries[entry] = bool(found)
        page = list(entries.items())[:most]
        more = len(entries) > len(page)
        last = page[-1][0] if page else ""
        encode = urllib.parse.quote if query.get("encoding-type") == "url" else escape
        told = {
            "Name": bucket, "Prefix": encode(prefix), "Delimiter": encode(delimiter), "MaxKeys": most,
            "EncodingType": query.get("encoding-type", ""), "IsTruncated": str(more).lower(),
        }  # fmt: skip
        if second:
            told |= {"KeyCount": len(page), "NextContinuationToken": escape(last) if more else ""}
        else:
            told |= {"Marker": encode(after), "NextMarker": encode(last) if more else ""}
        content = [f"<{name}>{value}</{name}>" for name, value in told.items() if value != ""]
        for entry, common in page:
            if common:
                content.append(f"<CommonPrefixes><Prefix>{encode(entry)}</Prefix></CommonPrefixes>")
            else:
                path = self.store.root / bucket / entry
                content.append(
                    f"<Contents><Key>{encode(entry)}</Key><LastModified>{_when(path)}</LastModified>"
                    f"<ETag>{_etag(path)}</ETag><Size>{path.stat().st_size}</Size><StorageClass>STANDARD</StorageClass>"
                    "</Contents>"
                )
        return _xml("ListBucketResult", "".join(content))

    def _delete_objects(self, request: Request, bucket: str) -> Answer:
        self._bucket(bucket)
        deleted = []
        for key in _texts(request.body.read(), "Key"):
            self._remove(bucket, key)
            deleted.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
        return _xml("DeleteResult", "".join(deleted))

    # An object

    def _path(self, bucket: str, key: str) -> Path:
        self._bucket(bucket)
        return self.store.path(f"s3://{bucket}/{key}")

    def _object(self, bucket: str, key: str) -> Path:
        path = self._path(bucket, key)
        if not path.is_file():
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        return path

    def _put(self, request: Request, bucket: str, key: str) -> Answer:
        path = self._path(bucket, key)
        if key.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            return Answer(headers={"ETag": _etag(path)})
        with self.store.writer(f"s3://{bucket}/{key}") as file:
            shutil.copyfileobj(request.body, file, PIECE)
        self._tell(bucket, key, request)
        return Answer(headers={"ETag": _etag(path)})

    def _copy(self, request: Request, bucket: str, key: str) -> Answer:
        source = self._source(request)
        with source.open("rb") as data, self.store.writer(f"s3://{bucket}/{key}") as file:
            shutil.copyfileobj(data, file, PIECE)
        path = self._path(bucket, key)
        return _xml("CopyObjectResult", f"<ETag>{_etag(path)}</ETag><LastModified>{_when(path)}</LastModified>")

    def _source(self, request: Request) -> Path:
        source = urllib.parse.unquote(request.headers["x-amz-copy-source"]).partition("?")[0]
        bucket, _, key = source.lstrip("/").partition("/")
        return self._object(bucket, key)

    def _get(self, request: Request, bucket: str, key: str) -> Answer:
        path = self._object(bucket, key)
        size = path.stat().st_size
        headers = {
            "ETag": _etag(path), "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
            "Accept-Ranges": "bytes", **self._told(bucket, key),
        }  # fmt: skip
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if not asked or asked.groups() == ("", ""):
            return Answer(_pieces(path, 0, size), 200, headers, size)
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last), size - 1) if first and last else size - 1
        if start > end:
            raise AwsError("InvalidRange", "The requested range is not satisfiable", 416)
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        return Answer(_pieces(path, start, end + 1 - start), 206, headers, end + 1 - start)

    def _delete(self, request: Request, bucket: str, key: str) -> Answer:
        self._bucket(bucket)
        self._remove(bucket, key)
        return Answer(status=204)

    def _remove(self, bucket: str, key: str) -> None:
        path, root = self._path(bucket, key), self.store.root / bucket
        if path.is_file():
            path.unlink()
        self._about(bucket, key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a folder that is not empty, or the bucket itself
            for folder in (path, *path.parents):
                if folder == root:
                    break
                if folder.is_dir():
                    folder.rmdir()

    # What a file cannot hold

    def _about(self, bucket: str, key: str) -> Path:
        name = hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()
        return self.store.hidden("about") / f"{name}.json"

    def _tell(self, bucket: str, key: str, request: Request) -> None:
        told = {name.lower(): value for name, value in request.headers.items() if _is_kept(name.lower())}
        if told:
            self._about(bucket, key).write_text(json.dumps(told))
        else:
            self._about(bucket, key).unlink(missing_ok=True)

    def _told(self, bucket: str, key: str) -> dict[str, str]:
        content_type = mimetypes.guess_type(key)[0] or "binary/octet-stream"
        try:
            told = json.loads(self._about(bucket, key).read_text())
        except FileNotFoundError:
            told = {}
        return {"content-type": content_type, **told}

    # An object that comes in parts

    def _begin_parts(self, request: Request, bucket: str, key: str) -> Answer:
        self._path(bucket, key)
        upload = uuid.uuid4().hex
        self._parts(upload).mkdir()
        self._tell(bucket, key, request)
        return _xml(
            "InitiateMultipartUploadResult",
            f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>",
        )

    def _put_part(self, request: Request, bucket: str, key: str) -> Answer:
        part = self._upload(request) / str(int(request.query.get("partNumber", "0")))
        if request.headers.get("x-amz-copy-source"):
            with self._source(request).open("rb") as data, part.open("wb") as file:
                first, last = re.findall(r"\d+", request.headers.get("x-amz-copy-source-range", "")) or (0, 0)
                data.seek(int(first))
                file.write(data.read(int(last) + 1 - int(first) if int(last) else -1))
            return _xml("CopyPartResult", f"<ETag>{_etag(part)}</ETag><LastModified>{_when(part)}</LastModified>")
        with part.open("wb") as file:
            shutil.copyfileobj(request.body, file, PIECE)
        return Answer(headers={"ETag": _etag(part)})

    def _join_parts(self, request: Request, bucket: str, key: str) -> Answer:
        folder = self._upload(request)
        numbers = sorted(int(number) for number in _texts(request.body.read(), "PartNumber"))
        with self.store.writer(f"s3://{bucket}/{key}") as file:
            for number in numbers:
                with (folder / str(number)).open("rb") as part:
                    shutil.copyfileobj(part, file, PIECE)
        shutil.rmtree(folder)
        etag = _etag(self._object(bucket, key))
        return _xml(
            "CompleteMultipartUploadResult",
            f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>{etag}</ETag>",
        )

    def _drop_parts(self, request: Request, bucket: str, key: str) -> Answer:
        shutil.rmtree(self._upload(request))
        return Answer(status=204)

    def _parts(self, upload: str) -> Path:
        return self.store.hidden("parts") / upload

    def _upload(self, request: Request) -> Path:
        folder = self._parts(request.query["uploadId"])
        if not re.fullmatch(r"[0-9a-f]{32}", folder.name) or not folder.is_dir():
            raise AwsError("NoSuchUpload", "The specified multipart upload does not exist.", 404)
        return folder

    def _put_or_copy(self, request: Request, bucket: str, key: str) -> Answer:
        copied = request.headers.get("x-amz-copy-source")
        return self._copy(request, bucket, key) if copied else self._put(request, bucket, key)


_ON_BUCKET = [
    ("GET", "location", Door._location),
    ("GET", "", Door._list),
    ("HEAD", "", Door._head_bucket),
    ("PUT", "", Door._create_bucket),
    ("POST", "delete", Door._delete_objects),
    ("DELETE", "", Door._delete_bucket),
]
_ON_OBJECT = [
    ("GET", "", Door._get),
    ("HEAD", "", Door._get),
    ("PUT", "uploadId", Door._put_part),
    ("PUT", "", Door._put_or_copy),
    ("POST", "uploads", Door._begin_parts),
    ("POST", "uploadId", Door._join_parts),
    ("DELETE", "uploadId", Door._drop_parts),
    ("DELETE", "", Door._delete),
]


def _is_kept(header: str) -> bool:
    return header == "content-type" or header.startswith("x-amz-meta-")


def _xml(root: str, content: str, namespace: str = _XMLNS) -> Answer:
    opening = f"{root} {namespace}".rstrip()
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{opening}>{content}</{root}>'
    return Answer(body.encode(), headers={"Content-Type": "application/xml"})


def _error(error: AwsError) -> Answer:
    answer = _xml("Error", f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>", namespace="")
    answer.status = error.status
    return answer


def _texts(document: bytes, tag: str) -> list[str]:
    found = ElementTree.fromstring(document).iter()
    return [element.text or "" for element in found if element.tag.rpartition("}")[2] == tag]


def _when(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _etag(path: Path) -> str:
    about = path.stat()
    return f'"{hashlib.md5(f"{about.st_mtime_ns}-{about.st_size}".encode()).hexdigest()}"'


def _pieces(path: Path, start: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(PIECE, length))):
            length -= len(piece)
            yield piece
