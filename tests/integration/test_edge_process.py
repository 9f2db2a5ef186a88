"""The edge as its own process: mTLS to fulfillment, JetStream, an issuer over HTTP, and its end."""

# ruff: noqa: N802, ARG002 # gRPC names the methods of a servicer and passes each a context
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Never

import httpx
import nats
import pytest
from chassis.clock import SystemClock
from chassis.events import Event
from chassis.server import GrpcServer
from chassis.tls import TlsFiles
from gateway.domain.order import Amount, Customer, KeyRequest, Order, State
from google.protobuf.timestamp_pb2 import Timestamp
from joserfc import jwe
from keyferry.audit.v1 import audit_service_pb2 as audit_messages
from keyferry.audit.v1 import audit_service_pb2_grpc as audit_stubs
from keyferry.events.v1 import kinguin_events_pb2
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.fulfillment.v1 import fulfillment_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as messages
from keyferry.fulfillment.v1 import fulfillment_service_pb2_grpc as stubs
from keyferry.type.v1 import actor_pb2, money_pb2
from sandbox.pki import Identity
from sandbox.ports import free_port
from sandbox.servers.nats import NatsServer

from tests.integration.real_servers import fresh_streams
from tests.unit.gateway.edge_fakes import AUDIENCE, FakeFulfillments, FakeIssuer, an_order, one_time_key

SECRET = "hook-secret"
STATUS = {"orderId": "S1", "status": "completed", "updatedAt": "2026-11-23T11:24:08.025+00:00"}
METHODS = ("GetFulfillment", "ListFulfillments", "WatchFulfillment", "CreateDownloadLink", "RevealKey")


NOTE = "keys.example.test/audit\n1\nAAAA\n\n\u2014 keys.example.test/audit AAAA\n"


class Auditor(audit_stubs.AuditServiceServicer):
    """As much of audit's contract as the edge has a use for."""

    async def GetCheckpoint(
        self, request: audit_messages.GetCheckpointRequest, context: object
    ) -> audit_messages.GetCheckpointResponse:
        return audit_messages.GetCheckpointResponse(note=NOTE)


class Servicer(stubs.FulfillmentServiceServicer):
    """Fulfillment's contract on the unit tests' fake."""

    def __init__(self, fake: FakeFulfillments) -> None:
        self.fake = fake

    async def GetFulfillment(
        self, request: messages.GetFulfillmentRequest, context: object
    ) -> messages.GetFulfillmentResponse:
        order = await self.fake.get(request.order_id, customer(request.actor))
        return messages.GetFulfillmentResponse(fulfillment=order_to_proto(order))

    async def ListFulfillments(
        self, request: messages.ListFulfillmentsRequest, context: object
    ) -> messages.ListFulfillmentsResponse:
        page = await self.fake.list(customer(request.actor), page_size=request.page_size, page_token=request.page_token)
        return messages.ListFulfillmentsResponse(
            fulfillments=[order_to_proto(order) for order in page.orders], next_page_token=page.next_page_token
        )

    async def WatchFulfillment(
        self, request: messages.WatchFulfillmentRequest, context: object
    ) -> AsyncIterator[messages.WatchFulfillmentResponse]:
        async for order in self.fake.watch(request.order_id, customer(request.actor)):
            yield messages.WatchFulfillmentResponse(fulfillment=order_to_proto(order))

    async def CreateDownloadLink(
        self, request: messages.CreateDownloadLinkRequest, context: object
    ) -> messages.CreateDownloadLinkResponse:
        link = await self.fake.create_download_link(wish(request))
        response = messages.CreateDownloadLinkResponse(
            url=link.url, content_key_jwe=link.content_key_jwe, object_sha256=link.object_sha256
        )
        response.expire_time.FromDatetime(link.expire_time)
        return response

    async def SubmitOrder(self, request: messages.SubmitOrderRequest, context: object) -> Never:
        raise NotImplementedError

    async def ConfirmPayment(self, request: messages.ConfirmPaymentRequest, context: object) -> Never:
        raise NotImplementedError

    async def RefundPayment(self, request: messages.RefundPaymentRequest, context: object) -> Never:
        raise NotImplementedError

    async def CancelFulfillment(self, request: messages.CancelFulfillmentRequest, context: object) -> Never:
        raise NotImplementedError

    async def RevealKey(self, request: messages.RevealKeyRequest, context: object) -> messages.RevealKeyResponse:
        return messages.RevealKeyResponse(key_jwe=await self.fake.reveal_key(wish(request)))


def customer(actor: actor_pb2.Actor) -> Customer:
    assert actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER
    return Customer(actor.id, actor.email, actor.ip_address, actor.user_agent)


def wish(request: messages.CreateDownloadLinkRequest | messages.RevealKeyRequest) -> KeyRequest:
    asker = customer(request.actor)
    return KeyRequest(request.request_id, request.order_id, request.key_id, asker, request.recipient_jwk)


def order_to_proto(order: Order) -> pb.Fulfillment:
    moment = Timestamp()
    moment.FromDatetime(order.create_time)
    return pb.Fulfillment(
        order_id=order.order_id,
        state=pb.State.Value(f"STATE_{order.state}"),
        total=amount(order.total),
        paid=amount(order.total),
        lines=[
            pb.Line(
                item_id=line.item_id,
                product_name=line.product_name,
                quantity=line.quantity,
                state=pb.State.Value(f"STATE_{line.state}"),
                keys=[
                    pb.Key(key_id=key.key_id, content_type=key.content_type, ready_time=moment, open_time=moment)
                    for key in line.keys
                ],
            )
            for line in order.lines
        ],
        create_time=moment,
        update_time=moment,
        pay_time=moment,
    )


def amount(value: Amount) -> money_pb2.Money:
    return money_pb2.Money(currency_code=value.currency_code, minor_units=value.minor_units)


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    fake: FakeIssuer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = fake.handle(httpx.Request("GET", f"{fake.url}{self.path}"))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the signature of http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeIssuer(SystemClock(), f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Running:
    """A running edge."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    private_url: str
    orders: FakeFulfillments
    grpc: GrpcServer
    log: Path


@pytest.fixture
async def edge(
    issuer: FakeIssuer, pki: Mapping[str, Identity], own_nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Running]:
    await fresh_streams(own_nats_server)
    orders = FakeFulfillments()
    orders.put("alice", an_order())
    server = GrpcServer(
        listen="127.0.0.1:0",
        tls=TlsFiles(pki["fulfillment"].folder),
        access={method: frozenset({"edge"}) for method in METHODS},
        services=["keyferry.fulfillment.v1.FulfillmentService"],
        registrars=[lambda server: stubs.add_FulfillmentServiceServicer_to_server(Servicer(orders), server)],
    )
    auditor = Auditor()  # type: ignore[abstract] # the edge calls no other method
    audit = GrpcServer(
        listen="127.0.0.1:0",
        tls=TlsFiles(pki["audit"].folder),
        access={"GetCheckpoint": frozenset({"edge"})},
        services=["keyferry.audit.v1.AuditService"],
        registrars=[lambda server: audit_stubs.add_AuditServiceServicer_to_server(auditor, server)],
    )
    await server.start()
    await audit.start()
    port, private_port = free_port(), free_port()
    log = tmp_path / "edge.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            stdout=output,
            stderr=output,
            env={
                "PATH": os.environ["PATH"],
                "KEYFERRY_TLS_DIR": str(pki["edge"].folder),
                "KEYFERRY_LOG_LEVEL": "debug",
                "KEYFERRY_TRACE_FILE": str(tmp_path / "spans.jsonl"),
                "KEYFERRY_PRIVATE_LISTEN": f"127.0.0.1:{private_port}",
                "PUBLIC_URL": f"http://localhost:{port}",
                "KEYFERRY_HTTP_LISTEN": f"127.0.0.1:{port}",
                "KEYFERRY_FULFILLMENT_ADDRESS": f"127.0.0.1:{server.port}",
                "KEYFERRY_AUDIT_ADDRESS": f"127.0.0.1:{audit.port}",
                "NATS_URL": own_nats_server.url,
                "KEYFERRY_OBJECT_ORIGIN": "http://localhost:9",
                "KINGUIN_WEBHOOK_SECRET": SECRET,
                "OIDC_ISSUER": issuer.url,
                "OIDC_CLIENT_ID": "edge",
                "OIDC_CLIENT_SECRET": "s",
                "OIDC_AUDIENCE": AUDIENCE,
                "KEYFERRY_SESSION_SECRET": "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            },
        )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        running = Running(process, client, f"http://127.0.0.1:{private_port}", orders, server, log)
        try:
            await until_ready(running)
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await server.drain(0.1)
            await audit.drain(0.1)


async def until_ready(running: Running) -> None:
    async with asyncio.timeout(20):
        while running.process.returncode is None:
            with suppress(httpx.HTTPError):
                if (await running.client.get(f"{running.private_url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    pytest.fail(running.log.read_text())


def bearer(issuer: FakeIssuer, subject: str = "alice") -> dict[str, str]:
    return {"authorization": f"Bearer {issuer.token(sub=subject)}"}


async def post_webhook(running: Running) -> httpx.Response:
    headers = {"x-event-name": "order.status", "x-event-secret": SECRET}
    return await running.client.post("/webhooks/kinguin", headers=headers, content=json.dumps(STATUS))


async def webhook_until(running: Running, status: int) -> httpx.Response:
    async with asyncio.timeout(20):
        while (response := await post_webhook(running)).status_code != status:  # noqa: ASYNC110 # another process
            await asyncio.sleep(0.1)
    return response


async def test_anybody_reads_the_checkpoint_of_audit(edge: Running) -> None:
    response = await edge.client.get("/v1/audit/checkpoint")
    assert (response.status_code, response.text) == (200, NOTE)


async def test_an_order_is_read_over_mutual_tls(edge: Running, issuer: FakeIssuer) -> None:
    order = (await edge.client.get("/v1/orders/order-1", headers=bearer(issuer))).json()
    assert order["state"] == "READY"
    listed = (await edge.client.get("/v1/orders", headers=bearer(issuer))).json()
    assert [each["order_id"] for each in listed["orders"]] == ["order-1"]
    foreign = await edge.client.get("/v1/orders/order-1", headers=bearer(issuer, "bob"))
    assert (foreign.status_code, foreign.json()["reason"]) == (404, "ORDER_NOT_FOUND")
    assert edge.orders.customers[0].ip_address == "127.0.0.1"


async def test_a_key_is_opened_and_its_plaintext_is_in_no_log(edge: Running, issuer: FakeIssuer) -> None:
    private, public = one_time_key()
    path = "/v1/orders/order-1/keys/key-order-1-1"
    link = await edge.client.post(f"{path}/download-link", json={"recipient_jwk": public}, headers=bearer(issuer))
    assert len(link.json()["object_sha256"]) == 64
    revealed = await edge.client.post(f"{path}/reveal", json={"recipient_jwk": public}, headers=bearer(issuer))
    opened = jwe.decrypt_compact(revealed.json()["key_jwe"], private, ["ECDH-ES+A256KW", "A256GCM"])
    assert opened.plaintext == b"AAAA-BBBB-CCCC"
    # An answer may be here before its line is in the log; a process that ended has written them all.
    edge.process.send_signal(signal.SIGTERM)
    await edge.process.wait()
    log = edge.log.read_text()
    assert '"route": "/v1/orders/{order_id}/keys/{key_id}/reveal"' in log
    assert all(secret not in log for secret in ("AAAA-BBBB", "X-Amz-Signature", "eyJ", "order-1", SECRET))


async def test_a_stream_follows_the_order(edge: Running, issuer: FakeIssuer) -> None:
    async with edge.client.stream("GET", "/v1/orders/order-1/events", headers=bearer(issuer), timeout=10) as response:
        lines = response.aiter_lines()
        states = []
        async for line in lines:
            if line.startswith('data: {"order_id"'):
                states.append(json.loads(line.removeprefix("data: "))["state"])
                edge.orders.put("alice", an_order(state=State.DELIVERED))
            if line == "event: end":
                break
    assert states == ["READY", "DELIVERED"]


async def test_a_webhook_is_in_jetstream_before_its_answer(edge: Running, own_nats_server: NatsServer) -> None:
    await webhook_until(edge, 204)
    assert (await post_webhook(edge)).status_code == 204
    client = await nats.connect(own_nats_server.url)
    stream = client.jetstream()
    assert (await stream.stream_info("KINGUIN")).state.messages == 1
    message = await stream.get_last_msg("KINGUIN", "kinguin.webhook.received")
    event = Event.parse(subject="kinguin.webhook.received", headers=message.headers, data=message.data or b"")
    body = kinguin_events_pb2.KinguinWebhookReceived.FromString(event.data)
    assert (body.supplier_order_id, body.status) == ("S1", "completed")
    assert event.type_name == "keyferry.events.v1.KinguinWebhookReceived"
    await client.close()


async def test_it_tells_the_audit_log_with_what_settings_it_runs(edge: Running, own_nats_server: NatsServer) -> None:
    assert (await edge.client.get(f"{edge.private_url}/readyz")).status_code == 200
    client = await nats.connect(own_nats_server.url)
    stream = client.jetstream()
    async with asyncio.timeout(20):
        while (await stream.stream_info("AUDIT")).state.messages < 1:  # noqa: ASYNC110 # another process
            await asyncio.sleep(0.1)
    message = await stream.get_last_msg("AUDIT", "audit.recorded")
    event = Event.parse(subject="audit.recorded", headers=message.headers, data=message.data or b"")
    fact = AuditRecorded.FromString(event.data)
    assert (event.source, fact.actor.id, fact.action) == ("/keyferry/edge", "edge", "settings.changed")
    assert len(fact.details["digest"]) == 64
    await client.close()


async def test_with_nats_down_webhooks_must_come_again_and_pages_stay(
    edge: Running, issuer: FakeIssuer, own_nats_server: NatsServer
) -> None:
    own_nats_server.stop()
    response = await webhook_until(edge, 503)
    assert (response.json()["reason"], response.headers["retry-after"]) == ("EVENTS_UNAVAILABLE", "5")
    assert (await edge.client.get("/v1/orders/order-1", headers=bearer(issuer))).status_code == 200
    own_nats_server.start()
    await webhook_until(edge, 204)


async def test_with_fulfillment_down_the_edge_says_so(edge: Running, issuer: FakeIssuer) -> None:
    await edge.grpc.drain(0.1)
    response = await edge.client.get("/v1/orders/order-1", headers=bearer(issuer), timeout=15)
    assert response.status_code == 503
    assert response.json()["reason"] == "SERVICE_UNAVAILABLE"
    assert "127.0.0.1" not in response.text
    assert response.headers["retry-after"]
    assert (await edge.client.get(f"{edge.private_url}/readyz")).status_code == 200


async def test_a_long_body_gets_its_answer(edge: Running, issuer: FakeIssuer) -> None:
    path = "/v1/orders/order-1/keys/key-order-1-1/reveal"
    response = await edge.client.post(path, content=b"x" * 2_000_000, headers=bearer(issuer))
    assert (response.status_code, response.json()["reason"]) == (413, "BODY_TOO_LARGE")


async def test_it_drains_on_sigterm_with_a_stream_open(edge: Running, issuer: FakeIssuer) -> None:
    async with edge.client.stream("GET", "/v1/orders/order-1/events", headers=bearer(issuer), timeout=10) as response:
        lines = response.aiter_lines()
        while not (await anext(lines)).startswith("event: order"):
            pass
        edge.process.send_signal(signal.SIGTERM)
        rest = [line async for line in lines]
    assert "event: end" not in rest
    async with asyncio.timeout(8):
        assert await edge.process.wait() == 0
    log = edge.log.read_text()
    assert "Traceback" not in log
    assert '"event": "stopped"' in log


async def test_a_request_is_one_span_of_ours_without_addresses(
    edge: Running, issuer: FakeIssuer, tmp_path: Path
) -> None:
    foreign = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
    await edge.client.get("/callback?code=a-login-s-code&state=a-login-s-state", headers=foreign)
    await edge.client.get("/v1/orders/order-1", headers=bearer(issuer) | foreign)
    edge.process.send_signal(signal.SIGTERM)
    await edge.process.wait()
    text = (tmp_path / "spans.jsonl").read_text()
    served = [span for span in map(json.loads, text.splitlines()) if span["kind"] == "SpanKind.SERVER"]
    assert [span["name"] for span in served] == ["GET /callback", "GET /v1/orders/{order_id}"]
    assert all(told not in text for told in ("a-login-s", "order-1", "1" * 32))


async def test_metrics_are_on_the_private_port_only(edge: Running) -> None:
    await edge.client.get("/docs")
    metrics = (await edge.client.get(f"{edge.private_url}/metrics")).text
    assert 'keyferry_http_seconds_count{method="GET",route="/docs",status="200"}' in metrics
    assert (await edge.client.get("/metrics")).status_code == 404
