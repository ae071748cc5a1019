import asyncio

import pytest

from hfserve.boot import ask


def asked(tmp_path, *answer, patience=10.0, closes=True):
    """What `get` makes of a server that answers so, and what the server was sent."""
    sent, writers = [], []

    async def serve(reader, writer):
        writers.append(writer)
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        for piece in answer:
            writer.write(piece)
            await writer.drain()
        if closes:
            writer.close()

    async def main():
        async with await asyncio.start_unix_server(serve, tmp_path / "s"):
            try:
                return await ask.get(tmp_path / "s", "/models/model", patience)
            finally:
                for writer in writers:
                    writer.close()
                    await writer.wait_closed()

    return asyncio.run(main()), sent


def test_a_body_is_as_long_as_its_head_says_and_nobody_waits_for_more(tmp_path):
    body, sent = asked(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none", b"\r\ntwo", closes=False)
    assert body == b"one\r\ntwo"
    assert sent[0].startswith(b"GET /models/model HTTP/1.0\r\n")


def test_a_body_of_untold_length_ends_with_the_connection(tmp_path):
    assert asked(tmp_path, b"HTTP/1.1 200 OK\r\n\r\none", b"two")[0] == b"onetwo"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 404 Not Found\r\n\r\nno", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", b"nonsense"]
)
def test_any_other_answer_counts_as_none(tmp_path, answer):
    assert asked(tmp_path, answer)[0] == b""


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path):
    assert asked(tmp_path, patience=0.05, closes=False)[0] == b""


def test_nobody_at_the_socket_counts_as_no_answer(tmp_path):
    assert asyncio.run(ask.get(tmp_path / "none", "/status", 1.0)) == b""
