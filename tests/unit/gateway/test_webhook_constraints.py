"""The supplier's rules for webhooks, by their numbers, and what others did wrong with them."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from chassis.events import derived_event_id
from gateway.config import Settings
from gateway.domain.webhook import NoNews, WebhookHint, read_webhook, secret_matches
from gateway.errors import EventsUnavailable
from gateway.metrics import WEBHOOK_LAST_TAKEN

from tests.unit.gateway.edge_fakes import WEBHOOK_SECRET, World

URL = "/webhooks/kinguin"
MOMENT = "2026-11-23T11:24:08.025+00:00"
STATUS = {"orderId": "PHS84FJAG5U", "orderExternalId": "kf-1", "status": "completed", "updatedAt": MOMENT}
COMPLETE = {"orderId": "PHS84FJAG5U", "orderExternalId": "kf-1", "updatedAt": MOMENT}
PRODUCT = {"kinguinId": 1949, "productId": "5c9b5f6b2539a4e8f172916a", "updatedAt": MOMENT}
Content = dict[str, Any]
EVENTS: list[tuple[str, Content]] = [
    ("order.status", STATUS),
    ("order.complete", COMPLETE),
    ("product.update", PRODUCT),
]


async def post(
    client: httpx.AsyncClient, name: str | None, content: object, *, secret: str | None = WEBHOOK_SECRET, **more: str
) -> httpx.Response:
    named = {"x-event-name": name, "x-event-secret": secret, **more}
    headers = {key: value for key, value in named.items() if value is not None}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return await client.post(URL, headers=headers, content=body)


@pytest.mark.parametrize(("name", "content"), EVENTS)
@pytest.mark.parametrize("content_type", ["application/json", "aplication/json", "text/plain", "", None])
async def test_k54_the_name_is_in_a_header_and_the_content_type_means_nothing(
    world: World, client: httpx.AsyncClient, name: str, content: object, content_type: str | None
) -> None:
    more = {} if content_type is None else {"content-type": content_type}
    assert (await post(client, name, content, **more)).status_code == 204
    assert [hint.event_name for hint in world.webhooks.stored] == [name]


@pytest.mark.parametrize("secret", ["k", "k" * 32, "k" * 33, "k" * 200])
def test_k55_a_secret_of_any_length_is_a_plain_shared_one(secret: str) -> None:
    assert secret_matches(secret, [b"another", secret.encode()])
    assert not secret_matches(secret + " ", [secret.encode()])
    assert "32 characters" in Settings.variables()["KINGUIN_WEBHOOK_SECRET"]


def test_k55_event_order_status_and_time_tell_a_duplicate() -> None:
    def event_id(name: str, content: Content, **changes: object) -> str:
        hint = read_webhook(name, json.dumps(content | changes).encode())
        assert isinstance(hint, WebhookHint)
        return derived_event_id(*hint.identity)

    ids = [
        event_id("order.status", STATUS),
        event_id("order.status", STATUS, orderId="other"),
        event_id("order.status", STATUS, status="canceled"),
        event_id("order.status", STATUS, updatedAt="2026-11-23T11:24:08.026+00:00"),
        event_id("order.complete", COMPLETE),
        event_id("product.update", PRODUCT),
        event_id("product.update", PRODUCT, productId="other"),
    ]
    assert len(set(ids)) == len(ids)
    again = dict(reversed(STATUS.items()))
    assert event_id("order.status", again, unknown=1) == ids[0]
    assert event_id("product.update", PRODUCT, qty=7) == ids[5]


@pytest.mark.parametrize(("name", "content"), [*EVENTS, (None, b""), ("new.event", b"x")])
async def test_k56_the_answer_is_2xx_and_empty(client: httpx.AsyncClient, name: str | None, content: object) -> None:
    response = await post(client, name, content)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


@pytest.mark.parametrize(("name", "content"), EVENTS)
async def test_k57_what_was_not_stored_is_not_2xx_so_that_it_comes_again(
    world: World, client: httpx.AsyncClient, name: str, content: object
) -> None:
    world.webhooks.failure = EventsUnavailable("not stored", retry_after=timedelta(seconds=5))
    response = await post(client, name, content)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    world.webhooks.failure = None
    assert (await post(client, name, content)).status_code == 204
    assert len(world.webhooks.stored) == 1


async def test_k58_the_time_of_the_last_webhook_is_told_so_that_silence_can_be_noticed(
    world: World, client: httpx.AsyncClient
) -> None:
    async def last_after(name: str | None, content: object, secret: str = WEBHOOK_SECRET) -> float:
        world.clock.advance(10)
        await post(client, name, content, secret=secret)
        return float(next(iter(WEBHOOK_LAST_TAKEN.collect())).samples[0].value)

    for name, content in EVENTS:
        assert await last_after(name, content) == world.clock.now().timestamp()
    taken = world.clock.now().timestamp()
    assert await last_after("order.status", STATUS, secret="forged") == taken
    assert await last_after("order.status", b"malformed") == taken
    assert await last_after(None, b"a probe") == taken
    world.webhooks.failure = EventsUnavailable("not stored")
    assert await last_after("order.status", STATUS) == taken


async def test_k58_orders_of_other_buyers_on_the_account_do_not_count_as_failures(
    world: World, client: httpx.AsyncClient
) -> None:
    foreign = STATUS | {"orderExternalId": "Bestellung № 17 / Müller"}
    assert (await post(client, "order.status", foreign)).status_code == 204
    assert world.webhooks.stored[0].external_id == ""


@pytest.mark.parametrize("moment", [MOMENT, "2020-10-16T11:24:08+00:00", "2026-11-23", "2026-11-23 11:24:08", "x"])
async def test_k59_the_supplier_s_time_is_passed_on_as_it_is_written(
    world: World, client: httpx.AsyncClient, moment: str
) -> None:
    for name, content in EVENTS:
        assert (await post(client, name, content | {"updatedAt": moment})).status_code == 204
    assert [hint.updated_at for hint in world.webhooks.stored] == [moment] * 3


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (None, b""),
        (None, b"not json"),
        (None, b"\xff\xfe"),
        (None, json.dumps(STATUS).encode()),
        ("", b"[]"),
        ("order.status", b""),
        ("order.status", b" \r\n"),
        ("order.status", b"{}"),
        ("order.complete", b'{"test": true}'),
        ("product.update", b'{"message": "TEST"}'),
        ("test", b"[1]"),
        ("order.status", b'{"orderId":"TEST","orderExternalId":"TEST","status":"completed","updatedAt":"2026-11-23"}'),
    ],
)
async def test_k60_the_dashboard_s_probe_gets_a_2xx_whatever_it_says(
    client: httpx.AsyncClient, name: str | None, body: bytes
) -> None:
    assert (await post(client, name, body)).status_code == 204
    assert (await post(client, name, body, secret="forged")).status_code == 401


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("order.status", STATUS, ("PHS84FJAG5U", "kf-1", "completed", "")),
        ("order.status", STATUS | {"orderExternalId": None}, ("PHS84FJAG5U", "", "completed", "")),
        ("order.complete", COMPLETE, ("PHS84FJAG5U", "kf-1", "completed", "")),
        ("order.complete", COMPLETE | {"status": None}, ("PHS84FJAG5U", "kf-1", "completed", "")),
        ("order.complete", COMPLETE | {"status": "refunded"}, ("PHS84FJAG5U", "kf-1", "refunded", "")),
        ("product.update", PRODUCT, ("", "", "", "5c9b5f6b2539a4e8f172916a")),
        ("product.update", PRODUCT | {"qty": 1, "cheapestOfferId": ["a"]}, ("", "", "", "5c9b5f6b2539a4e8f172916a")),
    ],
)
async def test_k61_payloads_are_as_documented(
    world: World, client: httpx.AsyncClient, name: str, content: object, wanted: tuple[str, ...]
) -> None:
    assert (await post(client, name, content)).status_code == 204
    (hint,) = world.webhooks.stored
    assert hint.event_name == name
    assert (hint.supplier_order_id, hint.external_id, hint.status, hint.product_id) == wanted


@pytest.mark.parametrize(("name", "content"), EVENTS)
async def test_k61_a_missing_or_wrong_member_is_named(client: httpx.AsyncClient, name: str, content: Content) -> None:
    # Nothing is done with the product's other number.
    for member in content.keys() - {"kinguinId"}:
        wrong = await post(client, name, content | {member: {"a": 1}})
        assert (wrong.status_code, wrong.json()["fields"][0]["field"]) == (400, member)
    for member in content.keys() - {"orderExternalId"}:
        lacking = await post(client, name, {key: value for key, value in content.items() if key != member})
        assert (lacking.status_code, lacking.json()["fields"][0]["field"]) == (400, member)


async def test_others_accepted_a_webhook_without_a_secret(world: World, client: httpx.AsyncClient) -> None:
    secrets: tuple[str | None, ...] = (None, "", " ")
    for secret in secrets:
        for name, content in EVENTS:
            assert (await post(client, name, content, secret=secret)).status_code == 401
        assert (await post(client, None, b"", secret=secret)).status_code == 401
        assert (await post(client, "new.event", b"", secret=secret)).status_code == 401
    assert world.webhooks.stored == []


async def test_others_answered_204_although_nothing_was_stored(world: World, client: httpx.AsyncClient) -> None:
    world.webhooks.failure = EventsUnavailable("not stored")
    for name, content in EVENTS:
        assert (await post(client, name, content)).status_code == 503
    for event_name in ("new.event", ""):
        # Only what holds no news is 204 without being stored.
        assert isinstance(read_webhook(event_name, b"{}"), NoNews)
        assert (await post(client, event_name, b"{}")).status_code == 204
