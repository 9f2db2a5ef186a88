from datetime import UTC, datetime
from typing import Any
from unittest.mock import sentinel

import pytest
from chassis.events import Event, new_event_id
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from kinguin_gateway import consumer
from kinguin_gateway.consumer import WebhookTaker


class Hurried:
    """Remembers whose look was made due; only orders named in `ours` are ours."""

    def __init__(self, *ours: str) -> None:
        self.ours = ours
        self.asked: list[tuple[str, str]] = []
        self.woken = 0

    async def hurry(self, connection: Any, *, supplier_order_id: str, external_id: str) -> bool:
        assert connection is sentinel.connection
        self.asked.append((supplier_order_id, external_id))
        return bool({supplier_order_id, external_id} & set(self.ours))

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what was asked to be done after the commit."""
    asked: list[Any] = []
    monkeypatch.setattr(consumer, "after_commit", lambda _connection, act: asked.append(act))
    return asked


async def take(hurried: Hurried, body: KinguinWebhookReceived) -> None:
    taker = WebhookTaker(hurried.hurry, hurried.wake)
    (handler,) = taker.handlers().values()
    event = Event.of(
        body,
        event_id=new_event_id(),
        subject="kinguin.webhook.received",
        source="edge",
        about="",
        time=datetime.now(UTC),
    )
    await handler.function(event, body, sentinel.connection)


@pytest.mark.parametrize("name", ["order.status", "order.complete"])
async def test_k54_a_webhook_about_an_order_of_ours_wakes_the_watcher_once_it_is_committed(
    committed: list[Any], name: str
) -> None:
    hurried = Hurried("PHS1")
    await take(hurried, KinguinWebhookReceived(event_name=name, supplier_order_id="PHS1", external_id="kf-1"))
    assert hurried.asked == [("PHS1", "kf-1")]
    assert hurried.woken == 0
    (act,) = committed
    act()
    assert hurried.woken == 1


async def test_an_order_that_is_not_ours_wakes_nobody(committed: list[Any]) -> None:
    hurried = Hurried("PHS1")
    await take(hurried, KinguinWebhookReceived(event_name="order.status", supplier_order_id="PHS2"))
    assert (hurried.asked, committed) == ([("PHS2", "")], [])


async def test_a_flood_about_products_does_not_reach_the_database(committed: list[Any]) -> None:
    hurried = Hurried("PHS1")
    await take(hurried, KinguinWebhookReceived(event_name="product.update", supplier_order_id="PHS1"))
    assert (hurried.asked, committed) == ([], [])


def test_it_takes_webhooks_and_nothing_else() -> None:
    hurried = Hurried()
    assert set(WebhookTaker(hurried.hurry, hurried.wake).handlers()) == {"keyferry.events.v1.KinguinWebhookReceived"}
