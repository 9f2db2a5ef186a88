from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from unittest.mock import sentinel

import pytest
from chassis.events import Event, derived_event_id
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from kinguin_gateway import consumer
from kinguin_gateway.consumer import WebhookTaker
from kinguin_gateway.domain.webhook import WebhookOutcome

from tests.unit.kinguin_gateway.fakes import FakeWebhooks

BOUGHT = "5c9b5f6b2539a4e8f172916a"


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what was asked to be done after the commit."""
    asked: list[Any] = []
    monkeypatch.setattr(consumer, "after_commit", lambda _connection, act: asked.append(act))
    return asked


def a_taker(webhooks: FakeWebhooks) -> WebhookTaker:
    return WebhookTaker(webhooks, lambda: None, is_known=webhooks.bought.__contains__)


def an_event(body: KinguinWebhookReceived) -> Event:
    return Event.of(
        body,
        event_id=derived_event_id("webhook", body.event_name, body.supplier_order_id, body.status, body.updated_at),
        subject="kinguin.webhook.received",
        source="edge",
        about="",
        time=datetime.now(UTC),
    )


def about_order(order: str, status: str = "processing", updated_at: str = "", **more: Any) -> KinguinWebhookReceived:
    fields = {"event_name": "order.status", "supplier_order_id": order, "status": status, "updated_at": updated_at}
    return KinguinWebhookReceived(**{**fields, **more})


def about_product(product_id: str) -> KinguinWebhookReceived:
    return KinguinWebhookReceived(event_name="product.update", product_id=product_id)


async def take(webhooks: FakeWebhooks, *bodies: KinguinWebhookReceived) -> Sequence[WebhookOutcome]:
    (handler,) = a_taker(webhooks).handlers().values()
    for body in bodies:
        await handler.function(an_event(body), body, sentinel.connection)
    return [webhook.outcome for webhook in webhooks.kept.values()]


@pytest.mark.parametrize("name", ["order.status", "order.complete"])
async def test_k54_a_webhook_about_an_order_of_ours_wakes_the_watcher_once_it_is_committed(
    committed: list[Any], name: str
) -> None:
    webhooks = FakeWebhooks("PHS1")
    assert await take(webhooks, about_order("PHS1", event_name=name)) == [WebhookOutcome.HURRIED]
    assert len(committed) == 1


async def test_k55_what_is_repeated_is_kept_once(committed: list[Any]) -> None:
    webhooks = FakeWebhooks("PHS1")
    await take(webhooks, about_order("PHS1", "completed", "2026-01-01T00:00:00Z"))
    await take(webhooks, about_order("PHS1", "completed", "2026-01-01T00:00:00Z"))
    assert len(webhooks.kept) == 1
    assert committed


async def test_an_order_that_is_not_ours_wakes_nobody_and_is_kept(committed: list[Any]) -> None:
    webhooks = FakeWebhooks("PHS1")
    assert await take(webhooks, about_order("PHS2")) == [WebhookOutcome.UNRELATED]
    assert committed == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_k59_whatever_comes_after_a_later_one_is_stale(committed: list[Any], order: tuple[int, ...]) -> None:
    webhooks = FakeWebhooks("PHS1")
    bodies = [about_order("PHS1", f"status-{n}", f"2026-01-01T00:00:0{n}.025+00:00") for n in order]
    outcomes = await take(webhooks, *bodies)
    for place, (number, outcome) in enumerate(zip(order, outcomes, strict=True)):
        is_latest = all(number > earlier for earlier in order[:place])
        assert outcome is (WebhookOutcome.HURRIED if is_latest else WebhookOutcome.STALE)
    # The latest always hurries, so that nothing is missed.
    assert len(committed) >= 1


@pytest.mark.parametrize("updated_at", ["", "yesterday", "2026-99-99"])
async def test_k59_a_time_that_cannot_be_read_is_never_stale(committed: list[Any], updated_at: str) -> None:
    webhooks = FakeWebhooks("PHS1")
    later = about_order("PHS1", "completed", "2026-01-01T00:00:00Z")
    assert await take(webhooks, later, about_order("PHS1", "processing", updated_at)) == [WebhookOutcome.HURRIED] * 2
    assert len(committed) == 2


@pytest.mark.parametrize(
    "body",
    [
        about_product("never-bought"),
        KinguinWebhookReceived(event_name="order.unknown", supplier_order_id="PHS1"),
        KinguinWebhookReceived(),
    ],
)
async def test_k61_what_concerns_nothing_of_ours_never_reaches_the_database(
    committed: list[Any], body: KinguinWebhookReceived
) -> None:
    webhooks = FakeWebhooks("PHS1", bought=[BOUGHT])
    (handler,) = a_taker(webhooks).handlers().values()
    assert handler.wanted is not None
    assert not handler.wanted(body)
    assert await take(webhooks, body) == []
    assert committed == []


async def test_k61_a_product_that_was_bought_is_read_again(committed: list[Any]) -> None:
    webhooks = FakeWebhooks(bought=[BOUGHT])
    assert await take(webhooks, about_product(BOUGHT)) == [WebhookOutcome.HURRIED]
    assert webhooks.hurried == [BOUGHT]
    assert committed


async def test_many_share_a_transaction_and_wake_once(committed: list[Any]) -> None:
    webhooks = FakeWebhooks("PHS1", "PHS2")
    bodies = [about_order("PHS1"), about_order("PHS2"), about_order("PHS3")]
    await a_taker(webhooks).take_group([(an_event(body), body) for body in bodies], sentinel.connection)
    assert [each.outcome.value for each in webhooks.kept.values()] == ["hurried", "hurried", "unrelated"]
    assert len(committed) == 1


def test_it_takes_webhooks_and_nothing_else() -> None:
    assert set(a_taker(FakeWebhooks()).handlers()) == {"keyferry.events.v1.KinguinWebhookReceived"}
