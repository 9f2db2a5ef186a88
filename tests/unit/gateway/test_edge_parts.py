"""Settings, conversions, the body gate, the NATS adapter: the parts below and around the routes."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from chassis.errors import ServiceUnavailable
from chassis.events import Event
from chassis.settings import SettingsError
from gateway.adapters import nats as adapter
from gateway.adapters.nats import NatsWebhooks
from gateway.assets import Assets
from gateway.config import Settings, split_secrets
from gateway.convert import customer_to_proto, download_link_from_proto, order_from_proto
from gateway.domain.order import Customer, State
from gateway.domain.webhook import WebhookHint
from gateway.edge import edge_of
from gateway.errors import EventsUnavailable
from gateway.headers import security_headers
from gateway.schema import order_model
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1 import kinguin_events_pb2
from keyferry.fulfillment.v1 import fulfillment_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2
from keyferry.type.v1 import actor_pb2, money_pb2
from pydantic import SecretStr
from starlette.requests import Request

from gateway import envelope
from tests.unit.gateway.edge_fakes import FakeClock, World, an_order

ENVIRONMENT = {
    "KEYFERRY_TLS_DIR": "/tls",
    "PUBLIC_URL": "https://keys.example.com/",
    "KEYFERRY_HTTP_LISTEN": "127.0.0.1:8080",
    "KEYFERRY_FULFILLMENT_ADDRESS": "10.0.0.1:7001,10.0.0.2:7001",
    "KEYFERRY_AUDIT_ADDRESS": "10.0.0.3:7001",
    "NATS_URL": "nats://127.0.0.1:4222",
    "KEYFERRY_OBJECT_ORIGIN": "http://localhost:9000",
    "KINGUIN_WEBHOOK_SECRET": "one, two",
    "OIDC_ISSUER": "https://login.example.com/realm",
    "OIDC_CLIENT_ID": "edge",
    "OIDC_CLIENT_SECRET": "s",
    "OIDC_AUDIENCE": "keyferry",
    "KEYFERRY_SESSION_SECRET": "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_settings_are_read() -> None:
    settings = Settings.load()
    assert settings.public_url == "https://keys.example.com"
    assert settings.keyferry_fulfillment_address == ("10.0.0.1:7001", "10.0.0.2:7001")
    assert settings.webhook_proofs().event_secrets == (b"one", b"two")
    assert settings.webhook_proofs().signature_secrets == ()
    assert set(settings.limits()) == {"address", "customer", "open_key", "refused_webhook"}
    assert settings.keyferry_trusted_proxies == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "http://keys.example.com"),
        ("PUBLIC_URL", "https://keys.example.com/shop"),
        ("PUBLIC_URL", "keys.example.com"),
        ("KEYFERRY_OBJECT_ORIGIN", "ftp://objects"),
        ("OIDC_ISSUER", "login.example.com"),
        ("KINGUIN_WEBHOOK_SECRET", " , "),
        ("KINGUIN_WEBHOOK_SECRET", "c2hvcnQ,"),
        ("KINGUIN_WEBHOOK_SECRET", "two c2hvcnQ"),
        ("KINGUIN_WEBHOOK_SECRET", "c2hvcnQ-\N{LATIN SMALL LETTER O WITH DIAERESIS}"),
        ("KEYFERRY_WEBHOOK_SIGNATURE_SECRET", " "),
        ("KEYFERRY_WEBHOOK_SIGNATURE_SECRET", "c2hvcnQ,,x"),
        ("KEYFERRY_SESSION_SECRET", "v1:c2hvcnQ"),
        ("KEYFERRY_LIMIT_ADDRESS", "many"),
        ("KEYFERRY_SESSION_SECONDS", "1"),
        ("KEYFERRY_NO_SUCH_THING", "1"),
    ],
)
def test_a_wrong_setting_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.load()
    assert "c2hvcnQ" not in str(caught.value)


def test_secrets_are_split_without_their_spaces() -> None:
    assert split_secrets(SecretStr(" a , b")) == (b"a", b"b")
    assert split_secrets(None) == ()


def a_time(second: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2026, 11, 23, 12, 0, second, tzinfo=UTC))
    return stamp


def test_a_fulfillment_is_read() -> None:
    message = pb.Fulfillment(
        order_id="o",
        state=pb.STATE_AWAITING_KEYS,
        total=money_pb2.Money(currency_code="EUR", minor_units=10),
        lines=[
            pb.Line(
                item_id="i",
                product_id="p",
                quantity=2,
                state=pb.STATE_READY,
                keys=[pb.Key(key_id="k", content_type="text/plain", ready_time=a_time(1))],
            )
        ],
        create_time=a_time(1),
        update_time=a_time(2),
    )
    order = order_from_proto(message)
    assert order.state is State.AWAITING_KEYS
    assert (order.paid, order.pay_time) == (None, None)
    assert order.lines[0].product_name == "p"
    assert order.lines[0].keys[0].open_time is None
    assert order.update_time == datetime(2026, 11, 23, 12, 0, 2, tzinfo=UTC)
    assert order_model(order).title == "p"


@pytest.mark.parametrize("state", [0, 99])
def test_an_unknown_state_is_an_error_with_a_name(state: int) -> None:
    with pytest.raises(ValueError, match="which this edge does not know"):
        order_from_proto(pb.Fulfillment(state=state))  # type: ignore[arg-type] # a newer fulfillment may send any number


def test_a_download_link_is_read() -> None:
    message = fulfillment_service_pb2.CreateDownloadLinkResponse(
        url="u", content_key_jwe="c", object_sha256=b"\x01", expire_time=a_time(3)
    )
    link = download_link_from_proto(message)
    assert (link.url, link.content_key_jwe, link.object_sha256) == ("u", "c", b"\x01")
    assert "u" not in repr(link).replace("gateway.domain", "")[:20]


def test_the_actor_is_a_customer() -> None:
    actor = customer_to_proto(Customer("alice", "a@example.test", "1.2.3.4", "agent", "DE"))
    assert actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER
    assert (actor.id, actor.email, actor.ip_address) == ("alice", "a@example.test", "1.2.3.4")
    assert (actor.user_agent, actor.country_code) == ("agent", "DE")


def test_an_order_has_a_title() -> None:
    order = an_order("o")
    assert order_model(order).title == "Half Life <3>"
    no_lines = order_model(order).model_copy(update={"lines": []})
    assert no_lines.title == "o"


class FakePublisher:
    stored: list[Event]
    failure: Exception | None = None

    def __init__(self, client: object) -> None:
        type(self).stored = []
        assert client == "client"

    async def publish_event(self, event: Event) -> None:
        if self.failure is not None:
            raise self.failure
        self.stored.append(event)


async def test_webhooks_become_events_with_a_derived_id(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connect(url: str, *, name: str) -> AsyncIterator[str]:
        assert (url, name) == ("nats://x", "edge")
        yield "client"

    monkeypatch.setattr(adapter, "connect_nats", connect)
    monkeypatch.setattr(adapter, "Publisher", FakePublisher)
    sink = NatsWebhooks("nats://x", FakeClock())
    hint = WebhookHint("order.status", "S1", "kf-1", "completed", "", "2026", b"digest")
    with pytest.raises(EventsUnavailable):
        await sink.publish(hint)
    connecting = asyncio.create_task(sink.keep_connected())
    await asyncio.sleep(0)
    await sink.publish(hint)
    await sink.publish(hint)
    first, second = FakePublisher.stored
    assert first.event_id == second.event_id
    assert (first.subject, first.about) == ("kinguin.webhook.received", "S1")
    assert first.type_name == "keyferry.events.v1.KinguinWebhookReceived"
    body = kinguin_events_pb2.KinguinWebhookReceived.FromString(first.data)
    assert (body.event_name, body.supplier_order_id, body.status) == ("order.status", "S1", "completed")
    assert body.body_sha256 == b"digest"
    monkeypatch.setattr(FakePublisher, "failure", ServiceUnavailable("no"))
    with pytest.raises(EventsUnavailable) as caught:
        await sink.publish(hint)
    assert caught.value.retry_after is not None
    connecting.cancel()


async def test_only_so_many_webhooks_are_being_stored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "MOST_PUBLISHING", 2)
    release = asyncio.Event()

    class Slow:
        async def publish_event(self, _event: Event) -> None:
            await release.wait()

    sink = NatsWebhooks("nats://x", FakeClock())
    sink._publisher = Slow()  # type: ignore[assignment] # all that is asked of it
    hint = WebhookHint("order.status", "S1", "kf-1", "completed", "", "2026")
    waiting = [asyncio.create_task(sink.publish(hint)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EventsUnavailable, match="too many") as caught:
        await sink.publish(hint)
    assert caught.value.retry_after is not None
    release.set()
    await asyncio.gather(*waiting)
    await sink.publish(hint)


async def drive(world: World, messages: list[dict[str, Any]], *, seconds: float = 0.0) -> tuple[int, list[bytes]]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(seconds)
            return {"type": "http.disconnect"}
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/webhooks/kinguin",
        "raw_path": b"",
        "query_string": b"",
        "headers": [],
        "client": None,
        "server": None,
        "scheme": "https",
    }
    await world.app()(scope, receive, send)
    return sent[0]["status"], [message.get("body", b"") for message in sent[1:]]


def chunk(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_put_together(world: World) -> None:
    status, _ = await drive(world, [chunk(b"a", more=True), chunk(b"b", more=False)])
    assert status == 401


async def test_an_endless_body_is_cut_off(world: World) -> None:
    pieces = [chunk(b"x" * 1_000_000, more=True) for _ in range(100)]
    status, body = await drive(world, pieces)
    assert status == 413
    assert b"BODY_TOO_LARGE" in body[0]
    assert len(pieces) == 91


async def test_a_slow_body_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "BODY_SECONDS", 0.01)
    status, body = await drive(world, [chunk(b"a", more=True)], seconds=60)
    assert status == 408
    assert b"BODY_TOO_SLOW" in body[0]


async def test_an_error_that_escapes_the_framework_is_answered(world: World) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 # the signature of ASGI
        raise RuntimeError("secret")

    async def begun(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await broken(scope, receive, send)

    statuses = []
    for app in (broken, begun):
        sent: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any], sent: list[MutableMapping[str, Any]] = sent) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return chunk(b"", more=False)

        scope = {"type": "http", "method": "GET", "path": "/v1/orders", "query_string": b"", "headers": []}
        await envelope.Envelope(app, world.edge())(scope, receive, send)
        statuses.append(sent[0]["status"])
        assert b"secret" not in b"".join(message.get("body", b"") for message in sent)
    assert statuses == [500, 200]


async def test_other_protocols_pass_through(world: World) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 # the signature of ASGI
        seen.append(scope["type"])

    await envelope.Envelope(app, world.edge())({"type": "lifespan"}, None, None)  # type: ignore[arg-type] # not used
    assert seen == ["lifespan"]


def test_a_request_outside_the_envelope_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        edge_of(Request({"type": "http", "keyferry.edge": None}))


def test_an_asset_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Assets().url("nope.css")


def test_plain_http_promises_no_https() -> None:
    assert "strict-transport-security" not in security_headers(origin="http://localhost:1", object_origin="http://o")


async def test_the_log_names_routes_and_nothing_private(world: World, logs: list[MutableMapping[str, Any]]) -> None:
    async with world.client() as client:
        await client.get("/v1/orders/order-1?token=abc", headers=world.bearer())
        await client.get("/made/up/by/strangers?x=1")
    served = [line for line in logs if line["event"] == "request served"]
    assert [line["route"] for line in served] == ["/v1/orders/{order_id}", "unknown"]
    assert [line["log_level"] for line in served] == ["info", "info"]
    assert "order-1" not in str(served)
    assert "abc" not in str(served)
