"""What strangers may send before the edge reads a request."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from gateway.server import HttpServer

from gateway import protocol
from tests.unit.gateway.edge_fakes import World

REQUEST = b"GET /v1/orders HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    world = World()
    server = HttpServer(world.app(), listen="127.0.0.1:0", streams=world.streams, trusted_proxies=(), drain_seconds=1)
    await server.start()
    yield server.port
    await server.drain(5)


async def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts, each after a pause, and return everything until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            await asyncio.sleep(pause)
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_head_without_end_is_cut_off(port: int) -> None:
    answer = await talk(port, REQUEST, *[b"x-filler: " + b"a" * 100_000 + b"\r\n"] * 20)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_one_header_without_end_is_cut_off(port: int) -> None:
    answer = await talk(port, REQUEST, b"x-filler: ", *[b"a" * 100_000] * 20)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begun", [b"", REQUEST, b"\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(port: int, begun: bytes) -> None:
    assert await talk(port, begun) == b""


async def test_nor_the_next_one_on_the_same_connection(port: int) -> None:
    answer = await talk(port, REQUEST + b"\r\n", b"\r\n", pause=0.1)
    assert answer.count(b"HTTP/1.1 401 ") == 1


async def test_a_long_body_is_no_head(port: int) -> None:
    body = b"POST /webhooks/kinguin HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n" + b" " * 1_000_000
    answer = await talk(port, body, REQUEST + b"connection: close\r\n\r\n")
    assert b"BODY_TOO_LARGE" in answer
    assert b"HTTP/1.1 401 " in answer
