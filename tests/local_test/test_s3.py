"""S3 on a folder, through boto3."""

import io

import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError


@pytest.fixture
def bucket(shared):
    name = shared.name("bucket")
    shared.s3.create_bucket(Bucket=name)
    return name


def code(error):
    return error.value.response["Error"]["Code"]


def test_an_object_is_put_read_listed_and_deleted(shared, bucket):
    s3 = shared.s3
    s3.put_object(Bucket=bucket, Key="a/b c+é.txt", Body=b"hello", ContentType="text/plain", Metadata={"made": "here"})
    got = s3.get_object(Bucket=bucket, Key="a/b c+é.txt")
    assert got["Body"].read() == b"hello"
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/plain", {"made": "here"}, 5)
    head = s3.head_object(Bucket=bucket, Key="a/b c+é.txt")
    assert head["ETag"] == got["ETag"]
    (listed,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (listed["Key"], listed["Size"], listed["ETag"]) == ("a/b c+é.txt", 5, got["ETag"])
    assert (shared.directory / "s3" / bucket / "a/b c+é.txt").read_bytes() == b"hello"
    s3.delete_object(Bucket=bucket, Key="a/b c+é.txt")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="a/b c+é.txt")
    assert code(error) == "NoSuchKey"
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket=bucket, Key="a/b c+é.txt")
    assert code(error) == "404"


def test_a_file_put_into_the_folder_is_an_object(shared, bucket):
    path = shared.directory / "s3" / bucket / "by/hand.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    got = shared.s3.get_object(Bucket=bucket, Key="by/hand.json")
    assert (got["Body"].read(), got["ContentType"]) == (b"{}", "application/json")


def test_part_of_an_object(shared, bucket):
    shared.s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")

    def get(wanted):
        return shared.s3.get_object(Bucket=bucket, Key="k", Range=wanted)

    assert (get("bytes=2-4")["Body"].read(), get("bytes=2-4")["ContentRange"]) == (b"234", "bytes 2-4/10")
    assert get("bytes=7-")["Body"].read() == b"789"
    assert get("bytes=-3")["Body"].read() == b"789"
    assert get("bytes=8-99")["Body"].read() == b"89"
    with pytest.raises(ClientError) as error:
        get("bytes=10-")
    assert code(error) == "InvalidRange"


def test_large_files_go_up_in_parts_and_come_down_in_ranges(shared, bucket, tmp_path):
    content = bytes(range(256)) * 4 * 1024 * 12  # 12 MiB
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=2)
    shared.s3.upload_file(str(source), bucket, "large", Config=parts, ExtraArgs={"Metadata": {"x": "y"}})
    assert shared.s3.head_object(Bucket=bucket, Key="large")["Metadata"] == {"x": "y"}
    shared.s3.download_file(bucket, "large", str(target), Config=parts)
    assert target.read_bytes() == content
    shared.s3.upload_fileobj(io.BytesIO(b"small"), bucket, "small")
    assert shared.s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"small"
    assert {one["Key"] for one in shared.s3.list_objects_v2(Bucket=bucket)["Contents"]} == {"large", "small"}


def test_an_upload_in_parts_can_be_given_up(shared, bucket):
    upload = shared.s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    shared.s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    shared.s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    with pytest.raises(ClientError) as error:
        shared.s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=b"x")
    assert code(error) == "NoSuchUpload"
    assert "Contents" not in shared.s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("stream", [False, True])
def test_bodies_that_are_signed_or_counted_in_chunks_arrive_whole(shared, bucket, stream):
    """What SDKs send for a file of unknown length: chunks with a checksum behind them."""
    body = io.BytesIO(b"x" * 100_000) if stream else b"x" * 100_000
    shared.s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm="CRC32")
    assert shared.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 100_000
    url = shared.s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "chunked"})
    framed = b"5;chunk-signature=abc\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Content-Encoding": "aws-chunked"}
    content = iter([framed[:20], framed[20:]]) if stream else framed
    assert httpx.put(url, content=content, headers=headers, trust_env=False).status_code == 200
    assert shared.s3.get_object(Bucket=bucket, Key="chunked")["Body"].read() == b"hello world"


def test_keys_are_listed_by_prefix_folder_and_page(shared, bucket):
    for key in ("a.txt", "data/1", "data/2", "data/deep/3", "z"):
        shared.s3.put_object(Bucket=bucket, Key=key, Body=b"")

    def keys(**options):
        return [one["Key"] for one in shared.s3.list_objects_v2(Bucket=bucket, **options).get("Contents", [])]

    assert keys() == ["a.txt", "data/1", "data/2", "data/deep/3", "z"]
    assert keys(Prefix="data/d") == ["data/deep/3"]
    assert keys(Prefix="none/") == []
    top = shared.s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [one["Key"] for one in top["Contents"]] == ["a.txt", "z"]
    assert [one["Prefix"] for one in top["CommonPrefixes"]] == ["data/"]
    for operation in ("list_objects_v2", "list_objects"):
        pages = shared.s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
        assert [one["Key"] for page in pages for one in page["Contents"]] == keys()


def test_objects_are_copied_and_deleted_together(shared, bucket):
    shared.s3.put_object(Bucket=bucket, Key="a & b", Body=b"x")
    shared.s3.copy_object(Bucket=bucket, Key="deep/c", CopySource={"Bucket": bucket, "Key": "a & b"})
    assert shared.s3.get_object(Bucket=bucket, Key="deep/c")["Body"].read() == b"x"
    wanted = {"Objects": [{"Key": "a & b"}, {"Key": "deep/c"}, {"Key": "never there"}]}
    assert len(shared.s3.delete_objects(Bucket=bucket, Delete=wanted)["Deleted"]) == 3
    assert "Contents" not in shared.s3.list_objects_v2(Bucket=bucket)
    shared.s3.delete_bucket(Bucket=bucket)
    assert bucket not in [one["Name"] for one in shared.s3.list_buckets()["Buckets"]]


def test_what_s3_refuses(shared, bucket):
    s3 = shared.s3
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="nowhere", Key="k", Body=b"")
    assert code(error) == "NoSuchBucket"
    with pytest.raises(ClientError) as error:
        s3.head_bucket(Bucket="nowhere")
    assert code(error) == "404"
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=bucket)
    assert code(error) == "BucketNotEmpty"
    for key in ("k/below-a-file", "a/../../../outside"):
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket=bucket, Key=key, Body=b"")
        assert code(error) == "InvalidURI"
    with pytest.raises(ClientError) as error:
        s3.put_bucket_policy(Bucket=bucket, Policy="{}")
    assert code(error) == "NotImplemented"
    assert not list(shared.directory.parent.rglob("outside"))
