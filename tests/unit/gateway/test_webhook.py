"""The supplier's webhooks: proof, form, identity."""

import hashlib
import hmac
import json
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from gateway.domain.webhook import (
    MalformedWebhook,
    NoNews,
    WebhookHint,
    read_webhook,
    secret_matches,
    signature_matches,
)
from gateway.errors import EventsUnavailable
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway.edge_fakes import WEBHOOK_SECRET, World

URL = "/webhooks/kinguin"
STATUS = {
    "orderId": "PHS84FJAG5U",
    "orderExternalId": "kf-1",
    "status": "completed",
    "updatedAt": "2026-11-23T11:24:08.025+00:00",
}
PRODUCT = {
    "kinguinId": 1949,
    "productId": "5c9b5f6b2539a4e8f172916a",
    "qty": 3,
    "updatedAt": "2026-11-23T11:24:08.025+00:00",
}


def headers(name: str | None = "order.status", secret: str | None = WEBHOOK_SECRET, **more: str) -> dict[str, str]:
    named = {"x-event-name": name, "x-event-secret": secret, "content-type": "aplication/json", **more}
    return {key: value for key, value in named.items() if value is not None}


async def test_an_accepted_status_is_stored_before_the_answer(world: World, client: httpx.AsyncClient) -> None:
    body = json.dumps(STATUS).encode()
    response = await client.post(URL, headers=headers(), content=body)
    assert (response.status_code, response.content) == (204, b"")
    updated_at, digest = "2026-11-23T11:24:08.025+00:00", hashlib.sha256(body).digest()
    assert world.webhooks.stored == [
        WebhookHint("order.status", "PHS84FJAG5U", "kf-1", "completed", "", updated_at, digest)
    ]


async def test_a_product_update_is_stored(world: World, client: httpx.AsyncClient) -> None:
    response = await client.post(URL, headers=headers("product.update"), content=json.dumps(PRODUCT))
    assert response.status_code == 204
    assert world.webhooks.stored[0].product_id == PRODUCT["productId"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("order.status", b""),
        ("order.status", b'{"test": true}'),
        ("order.paid", json.dumps(STATUS).encode()),
        ("order.paid", b"not json"),
        (None, b"{}"),
        (None, b""),
    ],
)
async def test_probes_and_unknown_events_are_taken_and_forgotten(
    world: World, client: httpx.AsyncClient, name: str | None, body: bytes
) -> None:
    world.webhooks.failure = EventsUnavailable("nothing of this is to be stored")
    response = await client.post(URL, headers=headers(name), content=body)
    assert response.status_code == 204
    assert world.webhooks.stored == []


async def test_a_secret_being_rotated_out_still_holds(world: World, client: httpx.AsyncClient) -> None:
    response = await client.post(URL, headers=headers(secret="hook-secret-old"), content=json.dumps(STATUS))
    assert response.status_code == 204
    assert len(world.webhooks.stored) == 1


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "",
        "wrong",
        WEBHOOK_SECRET[:-1],
        WEBHOOK_SECRET + "x",
        f"{WEBHOOK_SECRET},hook-secret-old",
        "hook-secret-öne",
    ],
)
async def test_a_wrong_secret_is_refused_unread(world: World, client: httpx.AsyncClient, secret: str | None) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers(secret=secret).items()]
    response = await client.post(URL, headers=sent, content=b"not even json")
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["reason"] == "WEBHOOK_REFUSED"
    assert world.webhooks.stored == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[1]", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 60_000, "body"),
        (b'{"orderId": "A", "status": "completed"}', "updatedAt"),
        (b'{"status": "completed", "updatedAt": "x"}', "orderId"),
        (b'{"orderId": 7, "status": "completed", "updatedAt": "x"}', "orderId"),
        (b'{"orderId": "", "status": "completed", "updatedAt": "x"}', "orderId"),
        (b'{"orderId": "a b", "status": "completed", "updatedAt": "x"}', "orderId"),
        (b'{"orderId": "A", "status": "\\ud800", "updatedAt": "x"}', "status"),
        (b'{"orderId": "A", "status": "\\u0000", "updatedAt": "x"}', "status"),
        (b'{"orderId": "A", "status": "b", "updatedAt": null}', "updatedAt"),
        (b'{"orderId": "A", "status": "b", "updatedAt": "a\\nb"}', "updatedAt"),
        (b'{"orderId": "A", "status": "b", "updatedAt": " a"}', "updatedAt"),
        (b'{"orderExternalId": "A"}', "orderId"),
        (b'{"orderId": "A", "orderExternalId": [], "status": "b", "updatedAt": "x"}', "orderExternalId"),
        (b'{"orderId": "A", "orderExternalId": {"a": 1}, "status": "b", "updatedAt": "x"}', "orderExternalId"),
        (json.dumps(STATUS | {"orderId": "A" * 129}).encode(), "orderId"),
    ],
)
async def test_a_malformed_body_names_its_field(
    world: World, client: httpx.AsyncClient, body: bytes, field: str
) -> None:
    response = await client.post(URL, headers=headers(), content=body)
    assert response.status_code == 400
    assert response.json()["reason"] == "MALFORMED_BODY"
    assert response.json()["fields"][0]["field"] == field
    assert world.webhooks.stored == []


async def test_a_long_body_is_too_large(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, headers=headers(), content=b"x" * (64 * 1024 + 1))
    assert response.status_code == 413
    assert response.json()["reason"] == "BODY_TOO_LARGE"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_it_must_come_again_while_nats_is_down(world: World, client: httpx.AsyncClient) -> None:
    world.webhooks.failure = EventsUnavailable("not stored", retry_after=timedelta(seconds=5))
    response = await client.post(URL, headers=headers(), content=json.dumps(STATUS))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["reason"] == "EVENTS_UNAVAILABLE"


async def test_every_forged_webhook_is_401_and_some_are_logged(logs: list[MutableMapping[str, Any]]) -> None:
    world = World(limits={"refused_webhook": "2/minute"})
    async with world.client() as client:
        refused = [(await client.post(URL, headers=headers(secret="no"), content=b"")).status_code for _ in range(100)]
    assert refused == [401] * 100
    assert world.webhooks.stored == []
    told = [line for line in logs if line["event"] == "webhook refused"]
    assert [line["address"] for line in told] == ["127.0.0.1", "127.0.0.1"]


async def test_genuine_webhooks_of_one_address_are_not_limited() -> None:
    world = World(limits={"address": "1/hour", "refused_webhook": "1/hour"})
    async with world.client() as client:
        for secret in ("no", "no", WEBHOOK_SECRET):
            await client.post(URL, headers=headers(secret=secret), content=json.dumps(STATUS))
        taken = [
            (await client.post(URL, headers=headers(), content=json.dumps(STATUS))).status_code for _ in range(200)
        ]
    assert taken == [204] * 200


async def test_a_flood_of_good_webhooks_leaves_the_log_readable(
    client: httpx.AsyncClient, logs: list[MutableMapping[str, Any]]
) -> None:
    for secret in (WEBHOOK_SECRET, "forged"):
        await client.post(URL, headers=headers("product.update", secret), content=json.dumps(PRODUCT))
    levels = [line["log_level"] for line in logs if line["event"] == "request served"]
    assert levels == ["debug", "info"]


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, "hook-secret-old", "almost-" + WEBHOOK_SECRET])
async def test_no_secret_is_logged(
    client: httpx.AsyncClient, logs: list[MutableMapping[str, Any]], secret: str
) -> None:
    for name, body in (("order.status", json.dumps(STATUS)), ("order.status", "{"), ("new.event", "{}"), (None, "")):
        await client.post(URL, headers=headers(name, secret), content=body)
    assert logs
    assert secret not in str(logs)


def signature(world: World, body: bytes, *, secret: bytes = b"signing", shift: int = 0) -> str:
    moment = int(world.clock.now().timestamp()) + shift
    mac = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={mac}"


@pytest.mark.parametrize(
    ("shift", "secret", "status"),
    [
        (0, b"signing", 204),
        (-300, b"signing", 204),
        (300, b"signing", 204),
        (-301, b"signing", 401),
        (301, b"signing", 401),
        (0, b"other", 401),
    ],
)
async def test_a_configured_signature_is_required(shift: int, secret: bytes, status: int) -> None:
    world = World(signature_secrets=(b"old", b"signing"))
    body = json.dumps(STATUS).encode()
    async with world.client() as client:
        signed = headers(**{"x-kinguin-signature": signature(world, body, secret=secret, shift=shift)})
        assert (await client.post(URL, headers=signed, content=body)).status_code == status
        assert (await client.post(URL, headers=headers(), content=body)).status_code == 401


def test_a_signature_is_of_this_body(world: World) -> None:
    now = world.clock.now().timestamp()
    assert signature_matches(signature(world, b"a"), b"a", [b"signing"], now)
    assert not signature_matches(signature(world, b"a"), b"b", [b"signing"], now)
    assert not signature_matches(None, b"a", [b"signing"], now)
    assert not signature_matches("t=1,v1=zz", b"a", [b"signing"], now)


def test_no_configured_secret_lets_nobody_in() -> None:
    assert not secret_matches("anything", [])
    assert not secret_matches("", [b""])


def test_the_same_news_has_the_same_identity() -> None:
    first = read_webhook("order.status", json.dumps(STATUS).encode())
    again = read_webhook("order.status", json.dumps(STATUS | {"orderExternalId": ""}).encode())
    later = read_webhook("order.status", json.dumps(STATUS | {"status": "canceled"}).encode())
    assert isinstance(first, WebhookHint)
    assert isinstance(again, WebhookHint)
    assert isinstance(later, WebhookHint)
    assert first.identity == again.identity
    assert first.identity != later.identity


@given(st.sampled_from(["order.status", "order.complete", "product.update"]), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name: str, body: bytes) -> None:
    with suppress(MalformedWebhook):
        assert read_webhook(name, body) is NoNews.PROBE or body


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from([*STATUS, *PRODUCT]), json_values))
def test_any_json_is_read_or_refused(content: dict[str, object]) -> None:
    for name in ("order.status", "order.complete", "product.update"):
        with suppress(MalformedWebhook):
            hint = read_webhook(name, json.dumps(content).encode())
            assert isinstance(hint, NoNews) or all(part.isprintable() for part in hint.identity)
