"""A storm of webhooks on the edge's own process: genuine, repeated, late, forged and malformed ones at 200 a second.

The sender is open-loop: a webhook has its moment whether or not the ones before it were answered, and its latency
counts from that moment, so that a stall of the edge is seen in all that it delays. KEYFERRY_PROOF=full sends 10,000 and
asserts how fast they are answered; otherwise there are fewer, and the figures are only printed.
"""

import asyncio
import hashlib
import hmac
import json
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
import pytest
from gateway.domain.webhook import WebhookHint
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from sandbox.pki import Identity
from sandbox.ports import HOST, free_port
from sandbox.servers.nats import NatsServer

from tests.integration.real_servers import ServiceProcess, eventually, fresh_streams

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
WEBHOOKS = 10_000 if FULL else 600
PER_SECOND = 200
MOST_P99_SECONDS = 0.020
SEED = 20261123
ANSWER_SECONDS = 30.0
SECRETS = ("secret-being-rotated-in", "secret-being-rotated-out")
SIGNING = (b"signing-being-rotated-in", b"signing-being-rotated-out")
TOLERANCE = 300
CONTENT_TYPES = ("application/json", "aplication/json")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)

Identities = Counter[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Letter:
    """One webhook: what it is and what must come of it. Headers are made when it is sent, as signatures have a time."""

    kind: str
    body: bytes
    headers: Callable[[], Mapping[str, str]]
    status: int
    hint: WebhookHint | None = None


def signature(body: bytes, secret: bytes, *, age: int = 0) -> str:
    moment = int(time.time()) - age
    return f"t={moment},v1={hmac.new(secret, f'{moment}.'.encode() + body, hashlib.sha256).hexdigest()}"


class Storm:
    """Makes letters, by seed."""

    def __init__(self, seed: int) -> None:
        self._luck = random.Random(seed)  # noqa: S311 # it shuffles
        self._made = 0
        self._sent: list[Letter] = []

    def letters(self, count: int) -> Iterator[Letter]:
        makers = [self.genuine, self._repeated, self._probe, self._late, self._forged, self._malformed]
        for _ in range(count):
            (maker,) = self._luck.choices(makers, weights=[60, 12, 5, 5, 12, 6])
            yield maker()

    def _news(self) -> tuple[str, dict[str, object], WebhookHint]:
        self._made += 1
        # Some come long after what they tell, or before what came earlier (K59): all of it is news to be stored.
        moment = f"2026-11-{self._luck.randint(1, 28):02d}T11:24:08.{self._made % 1000:03d}+00:00"
        name = self._luck.choices(["product.update", "order.status", "order.complete"], weights=[70, 20, 10])[0]
        if name == "product.update":
            product = f"5c9b5f6b2539a4e8{self._made:08x}"
            content: dict[str, object] = {"kinguinId": self._made, "productId": product, "qty": 3, "updatedAt": moment}
            return name, content, WebhookHint(name, product_id=product, updated_at=moment)
        order, external = f"PHS{self._made:08d}", f"kf-{self._made}"
        content = {"orderId": order, "orderExternalId": external, "updatedAt": moment}
        status = "completed"
        if name == "order.status":
            status = self._luck.choice(["processing", "completed", "canceled", "refunded"])
            content["status"] = status
        return name, content, WebhookHint(name, order, external, status, "", moment)

    def _proven(self, name: str | None, body: bytes) -> Callable[[], Mapping[str, str]]:
        secret, signing = self._luck.choice(SECRETS), self._luck.choice(SIGNING)
        age = self._luck.choice([0, 0, 0, TOLERANCE - 60, -TOLERANCE + 60])
        content_type = self._luck.choice(CONTENT_TYPES)
        named = {} if name is None else {"X-Event-Name": name}
        return lambda: {
            **named,
            "X-Event-Secret": secret,
            "X-Kinguin-Signature": signature(body, signing, age=age),
            "Content-Type": content_type,
        }

    def genuine(self) -> Letter:
        name, content, hint = self._news()
        body = json.dumps(content).encode()
        letter = Letter("genuine", body, self._proven(name, body), 204, hint)
        self._sent.append(letter)
        return letter

    def _repeated(self) -> Letter:
        if not self._sent:
            return self.genuine()
        # The last one is often still on its way.
        first = self._luck.choice([self._sent[-1], self._luck.choice(self._sent)])
        assert first.hint is not None
        return Letter("repeated", first.body, self._proven(first.hint.event_name, first.body), 204)

    def _probe(self) -> Letter:
        name, body = self._luck.choice(
            [(None, b""), (None, b"test"), ("order.status", b'{"test": true}'), ("order.complete", b""), ("new", b"[")]
        )
        return Letter("probe", body, self._proven(name, body), 204)

    def _late(self) -> Letter:
        name, content, _ = self._news()
        body = json.dumps(content).encode()
        age = self._luck.choice([TOLERANCE + 30, -TOLERANCE - 30, 86_400])
        good = self._proven(name, body)
        return Letter(
            "late", body, lambda: {**good(), "X-Kinguin-Signature": signature(body, SIGNING[0], age=age)}, 401
        )

    def _forged(self) -> Letter:
        name, content, _ = self._news()
        body = json.dumps(content).encode()
        good = self._proven(name, body)
        secret = {"X-Event-Secret": self._luck.choice(["", "guess", SECRETS[0][:-1], ",".join(SECRETS)])}
        signed = {
            "X-Kinguin-Signature": self._luck.choice(
                ["", "t=1,v1=0", signature(body, b"guess"), signature(b"another body", SIGNING[0])]
            )
        }
        lie = self._luck.choice([secret, signed, {**secret, **signed}])
        return Letter("forged", body, lambda: {**good(), **lie}, 401)

    def _malformed(self) -> Letter:
        name, content, _ = self._news()
        member = self._luck.choice(["updatedAt", "productId" if name == "product.update" else "orderId"])
        broken = self._luck.choice(
            [
                json.dumps(content)[:-1].encode(),
                json.dumps([content]).encode(),
                json.dumps(content | {member: None}).encode(),
                json.dumps({key: value for key, value in content.items() if key != member}).encode(),
                b"\xff" + json.dumps(content).encode(),
            ]
        )
        return Letter("malformed", broken, self._proven(name, broken), 400)


class Sender:
    """Sends over kept connections, as many as are needed at once; nothing in it is slower than a socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, letter: Letter) -> int:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
        head = "".join(f"{name}: {value}\r\n" for name, value in letter.headers().items())
        first = f"POST /webhooks/kinguin HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(letter.body)}\r\n"
        writer.write(f"{first}{head}\r\n".encode() + letter.body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status, length = _STATUS_LINE.match(answer), _LENGTH.search(answer)
        assert status is not None, answer
        body = await reader.readexactly(int(length[1])) if length is not None else b""
        assert status[1] != b"204" or body == b"", "the answer to a good webhook is empty (K56)"
        self._idle.append((reader, writer))
        return int(status[1])

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


@pytest.fixture
def storm_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a NATS that answers only after the message is on disk, as production does."""
    server = NatsServer(tmp_path / "nats", sync_always=True)
    server.start()
    yield server
    server.stop()


@dataclass(frozen=True, slots=True)
class Edge:
    """The edge's process."""

    port: int
    process: ServiceProcess

    async def counted(self, outcome: str) -> int:
        """Return how many webhooks had this outcome."""
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://{HOST}:{self.process.private_port}/metrics")).text
        found = re.search(rf'^keyferry_webhooks_total{{outcome="{outcome}"}} (\S+)$', metrics, re.MULTILINE)
        return int(float(found[1])) if found else 0


@pytest.fixture
async def edge(pki: Mapping[str, Identity], storm_nats: NatsServer, tmp_path: Path) -> AsyncIterator[Edge]:
    await fresh_streams(storm_nats)
    port = free_port()
    process = ServiceProcess(
        "gateway",
        tmp_path,
        {
            "KEYFERRY_TLS_DIR": str(pki["edge"].folder),
            "PUBLIC_URL": f"http://localhost:{port}",
            "KEYFERRY_HTTP_LISTEN": f"{HOST}:{port}",
            "KEYFERRY_FULFILLMENT_ADDRESS": f"{HOST}:9",
            "KEYFERRY_AUDIT_ADDRESS": f"{HOST}:9",
            "NATS_URL": storm_nats.url,
            "KEYFERRY_OBJECT_ORIGIN": "http://localhost:9",
            "KINGUIN_WEBHOOK_SECRET": ",".join(SECRETS),
            "KEYFERRY_WEBHOOK_SIGNATURE_SECRET": b",".join(SIGNING).decode(),
            "OIDC_ISSUER": f"http://{HOST}:9",
            "OIDC_CLIENT_ID": "edge",
            "OIDC_CLIENT_SECRET": "s",
            "OIDC_AUDIENCE": "keyferry",
            "KEYFERRY_SESSION_SECRET": "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        },
    )
    process.start()
    try:
        await asyncio.to_thread(process.wait_ready)
        yield Edge(port, process)
    finally:
        process.stop()


async def stored(server: NatsServer) -> Identities:
    """Return what the stream holds, with how often."""
    client = await nats.connect(server.url)
    try:
        subscription = await client.jetstream().subscribe("kinguin.webhook.received", ordered_consumer=True)
        count = (await client.jetstream().stream_info("KINGUIN")).state.messages
        found: Identities = Counter()
        for _ in range(count):
            body = KinguinWebhookReceived.FromString((await subscription.next_msg(timeout=10)).data)
            names = (body.event_name, body.supplier_order_id, body.external_id, body.status, body.product_id)
            found[(*names, body.updated_at, body.body_sha256.hex())] += 1
        return found
    finally:
        await client.close()


def wanted(letter: Letter) -> tuple[str, ...]:
    hint = letter.hint
    assert hint is not None
    names = (hint.event_name, hint.supplier_order_id, hint.external_id, hint.status, hint.product_id, hint.updated_at)
    return (*names, hashlib.sha256(letter.body).hexdigest())


async def send_all(sender: Sender, letters: list[Letter]) -> list[tuple[Letter, int, float]]:
    """Send each at its moment and return status and seconds since that moment."""
    begin = time.perf_counter() + 0.1

    async def send(letter: Letter, moment: float) -> tuple[Letter, int, float]:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await sender.post(letter)
        return letter, status, time.perf_counter() - moment

    sending = []
    for number, letter in enumerate(letters):
        moment = begin + number / PER_SECOND
        await asyncio.sleep(moment - time.perf_counter())
        sending.append(asyncio.create_task(send(letter, moment)))
    return await asyncio.gather(*sending)


async def test_a_storm_of_webhooks_is_answered_rightly_and_each_genuine_one_is_stored_once(
    edge: Edge, storm_nats: NatsServer
) -> None:
    sender = Sender(edge.port)
    storm = Storm(SEED)
    first = storm.genuine()

    async def is_connected_to_nats() -> bool:
        return await sender.post(first) == 204

    await eventually(is_connected_to_nats)
    letters = list(storm.letters(WEBHOOKS))
    try:
        answers = await send_all(sender, letters)
    finally:
        sender.close()
    tell(answers)

    wrong = Counter((letter.kind, status) for letter, status, _ in answers if status != letter.status)
    assert not wrong
    genuine = [letter for letter in letters if letter.hint is not None]
    assert await stored(storm_nats) == Counter([wanted(first), *map(wanted, genuine)])
    kinds = Counter(letter.kind for letter in letters)
    assert set(kinds) == {"genuine", "repeated", "probe", "late", "forged", "malformed"}
    assert await edge.counted("refused") == kinds["late"] + kinds["forged"]
    assert await edge.counted("malformed") == kinds["malformed"]
    assert await edge.counted("stored") == 1 + kinds["genuine"] + kinds["repeated"]
    log = edge.process.log.read_text()
    assert all(secret not in log for secret in (*SECRETS, *(each.decode() for each in SIGNING)))
    assert '"level": "error"' not in log
    if FULL:
        assert percentile(answers, 99) < MOST_P99_SECONDS


def percentile(answers: list[tuple[Letter, int, float]], number: int) -> float:
    return statistics.quantiles((seconds for _, _, seconds in answers), n=100)[number - 1]


def tell(answers: list[tuple[Letter, int, float]]) -> None:
    counts = Counter(f"{letter.kind} {status}" for letter, status, _ in answers)
    worst = max(seconds for _, _, seconds in answers)
    sys.stdout.write(
        f"\n{len(answers)} webhooks at {PER_SECOND}/s: p50 {percentile(answers, 50) * 1000:.1f} ms, "
        f"p99 {percentile(answers, 99) * 1000:.1f} ms, worst {worst * 1000:.1f} ms; {dict(sorted(counts.items()))}\n"
    )
