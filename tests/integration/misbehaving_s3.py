"""A real S3 behind something that misbehaves: answers with errors, loses answers, cuts them off or flips a bit of them.

What is not told to misbehave goes through byte for byte, so that signatures hold: they name the address that was asked.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)

Answer = Callable[[bytes, bytes], bytes]
"""Makes an answer of the request's body and the real answer; both answers are head and body."""


@dataclass(frozen=True)
class Fault:
    """What becomes of a request: it reaches the store or not, and what is answered; None closes the connection."""

    reaches_store: bool
    answer: Answer | None
    hangs: bool = False


def says(status: int, code: str = "", *, headers: str = "") -> Fault:
    """Answer with an error in S3's words, or in nobody's, without asking the store."""
    error = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    body = error if code else "<html>not an object store</html>"
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/xml\r\ncontent-length: {len(body)}\r\n{headers}"
    return Fault(reaches_store=False, answer=lambda _request, _real: f"{head}connection: close\r\n\r\n{body}".encode())


def _cut_off(_request: bytes, answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + body[: len(body) // 2]


def _shortened(_request: bytes, answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    half = body[: len(body) // 2]
    return _LENGTH.sub(b"\r\ncontent-length: %d" % len(half), head) + b"\r\n\r\n" + half


def _flipped(_request: bytes, answer: bytes) -> bytes:
    return answer[:-9] + bytes([answer[-9] ^ 1]) + answer[-8:]


def _refused_inside(request: bytes, _answer: bytes) -> bytes:
    """Say yes to a deletion of several, and in its body no to each of them."""
    key = request.partition(b"<Key>")[2].partition(b"</Key>")[0]
    error = b"<Error><Key>%s</Key><Code>AccessDenied</Code><Message>no</Message></Error>" % key
    body = b"<DeleteResult>%s</DeleteResult>" % error
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)


RESET = Fault(reaches_store=False, answer=None)
LOST_ANSWER = Fault(reaches_store=True, answer=None)
CUT_OFF = Fault(reaches_store=True, answer=_cut_off)
SHORTENED = Fault(reaches_store=True, answer=_shortened)
FLIPPED = Fault(reaches_store=True, answer=_flipped)
REFUSED_INSIDE = Fault(reaches_store=False, answer=_refused_inside)
HANGS = Fault(reaches_store=False, answer=None, hangs=True)


@dataclass
class MisbehavingS3:
    """The store, and what it is told to do wrong, by method; a number says how often."""

    upstream: str
    url: str = ""
    faults: dict[str, tuple[Fault, int | None]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def while_it(self, method: str, fault: Fault, *, times: int | None = None) -> AsyncIterator[None]:
        """Misbehave within the block, in the answers to one method."""
        self.faults[method] = (fault, times)
        try:
            yield
        finally:
            self.faults.pop(method, None)

    def _next_fault(self, method: str) -> Fault | None:
        fault, times = self.faults.get(method, (None, None))
        if fault is None or times == 0:
            return None
        self.faults[method] = (fault, None if times is None else times - 1)
        return fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request of a connection, and close it."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if b"100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(length[1])) if length else b""
        method = head.partition(b" ")[0].decode()
        self.asked[method] += 1
        fault = self._next_fault(method)
        if fault is not None and fault.hangs:
            await reader.read()
            return
        answer = await self._ask(head, body) if fault is None or fault.reaches_store else b""
        if fault is None:
            writer.write(answer)
        elif fault.answer is not None:
            writer.write(fault.answer(body, answer))
        await writer.drain()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            plain = _CONNECTION.sub(b"", head).replace(b"100-continue", b"")
            writer.write(plain[:-2] + b"connection: close\r\n\r\n" + body)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def misbehaving(upstream: str) -> AsyncIterator[MisbehavingS3]:
    """Serve in front of a real store."""
    store = MisbehavingS3(upstream)
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    store.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield store
