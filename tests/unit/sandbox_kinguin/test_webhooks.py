import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from sandbox.kinguin import webhooks as module
from sandbox.kinguin.app import CONTRACT
from sandbox.kinguin.catalogue import BY_ID
from sandbox.kinguin.faults import Faults
from sandbox.kinguin.letters import Headers
from sandbox.kinguin.mischief import Rule, WebhookMode
from sandbox.kinguin.orders import Change
from sandbox.kinguin.plan import Circumstances
from sandbox.kinguin.rules import Line, PlaceOrder
from sandbox.kinguin.supplier import Settings, open_supplier
from sandbox.kinguin.webhooks import Webhooks

from tests.unit.sandbox_kinguin.simulated_supplier import SteppingClock, offer, product

SECRET = "a-shared-secret"


@dataclass
class Shop:
    """Takes webhooks; `answers` are given first, then 204."""

    answers: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    async def post(self, body: bytes, headers: Headers) -> int:
        self.bodies.append(json.loads(body))
        self.headers.append(headers)
        answer = self.answers.pop(0) if self.answers else 204
        if answer == 0:
            raise OSError
        return answer


@dataclass
class Calm:
    """Every webhook in one mode, and no other oddity unless asked for."""

    mode: WebhookMode = "normal"
    seconds: float = 0.0
    older: Literal["besides", "instead"] | None = None
    products: bool = False
    most_failed: int = 1000

    def webhook_mode(self) -> tuple[WebhookMode, float]:
        return self.mode, self.seconds

    def order_complete(self) -> Literal["besides", "instead"] | None:
        return self.older

    def wants_product_updates(self) -> bool:
        return self.products

    def most_failed_webhooks(self) -> int:
        return self.most_failed


def change(number: int = 1, status: str = "completed") -> Change:
    return Change(f"P{number}", f"mine-{number}", status, 1_602_847_448.025)


@asynccontextmanager
async def sending(
    shop: Shop, mode: WebhookMode = "normal", seconds: float = 0.0, calm: Calm | None = None
) -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(shop.post, secret=SECRET, moods=calm or Calm(mode, seconds), seed=1)
    task = asyncio.create_task(webhooks.run())
    yield webhooks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 # counts have no event
            await asyncio.sleep(0)


async def test_k54_k55_k61_a_webhook_names_its_event_and_shows_the_secret() -> None:
    shop = Shop()
    async with sending(shop) as webhooks:
        webhooks.announce(change(1))
        webhooks.announce(change(2))
        await eventually(lambda: webhooks.counts.delivered == 2)
    assert shop.bodies[0] == {
        "orderId": "P1",
        "orderExternalId": "mine-1",
        "status": "completed",
        "updatedAt": "2020-10-16T11:24:08.025+00:00",
    }
    assert {(each["X-Event-Name"], each["X-Event-Secret"]) for each in shop.headers} == {("order.status", SECRET)}
    assert {each["Content-Type"] for each in shop.headers} == {"application/json", "aplication/json"}


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_k56_any_2xx_will_do(status: int) -> None:
    shop = Shop([status])
    async with sending(shop) as webhooks:
        webhooks.announce(change())
        await eventually(lambda: webhooks.counts.delivered == 1)
    assert webhooks.counts.failed == 0


async def test_k57_it_is_repeated_and_then_lost_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0, 0))
    shop = Shop([500, 0, 401])
    async with sending(shop) as webhooks:
        webhooks.announce(change())
        await eventually(lambda: webhooks.counts.dropped == 1)
    assert len(shop.bodies) == 3
    assert (webhooks.counts.failed, webhooks.counts.delivered, webhooks.waiting) == (3, 0, 0)


async def test_k59_shuffled_webhooks_come_in_another_order() -> None:
    shop = Shop()
    async with sending(shop, "shuffled", 0.01) as webhooks:
        for number in range(6):
            webhooks.announce(change(number))
        await eventually(lambda: webhooks.counts.delivered == 6)
    got = [body["orderId"] for body in shop.bodies]
    assert sorted(got) == [f"P{number}" for number in range(6)] != got


async def test_k60_the_probe_is_sent() -> None:
    shop = Shop()
    async with sending(shop) as webhooks:
        webhooks.probe()
        await eventually(lambda: webhooks.counts.delivered == 1)
    assert shop.headers[0]["X-Event-Secret"] == SECRET


async def test_k58_an_endpoint_that_fails_too_often_is_disabled_until_somebody_enables_it() -> None:
    shop = Shop([500, 500, 204, *[500] * 4])
    async with sending(shop, calm=Calm(most_failed=4)) as webhooks:
        for number in range(7):
            webhooks.announce(change(number))
        await eventually(lambda: not webhooks.enabled)
        assert webhooks.waiting == 0
        assert webhooks.counts.dropped == 6
        webhooks.announce(change(8))
        await asyncio.sleep(0)
        assert (len(shop.bodies), webhooks.counts.suppressed) == (7, 1)
        webhooks.probe()
        await eventually(lambda: webhooks.counts.delivered == 2)
        assert webhooks.as_json()["enabled"] is False
        webhooks.enable()
        webhooks.announce(change(9))
        await eventually(lambda: webhooks.counts.delivered == 3)
    assert shop.bodies[-1]["orderId"] == "P9"


async def test_k59_an_old_status_may_come_again_later() -> None:
    shop = Shop()
    async with sending(shop, "stale", 0.01) as webhooks:
        webhooks.announce(change(1, "processing"))
        webhooks.announce(change(1, "completed"))
        await eventually(lambda: webhooks.counts.delivered == 3)
    assert [body["status"] for body in shop.bodies] == ["processing", "completed", "processing"]
    assert shop.bodies[0] == shop.bodies[2]


TYPES = {"string": str, "integer": int, "array": list}


def follows_the_contract(event: str, body: dict[str, Any]) -> bool:
    contract = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    schema = contract["webhooks"][event]["post"]["requestBody"]["content"]["application/json"]["schema"]
    types = {name: TYPES[form.get("type", "string")] for name, form in schema["properties"].items()}
    return set(schema["required"]) <= body.keys() and all(type(value) is types[name] for name, value in body.items())


async def test_k61_stock_that_changes_is_told_where_a_rule_asks_for_it(tmp_path: Path) -> None:
    shop = Shop()
    settings = Settings(tmp_path, api_key="", webhook_secret=SECRET)
    supplier = open_supplier(settings, post=shop.post, clock=SteppingClock())
    task = asyncio.create_task(supplier.webhooks.run())
    order = PlaceOrder((Line(product("02"), 6, Decimal(10)), Line(product("03"), 1, Decimal(20))), "mine")
    supplier.announce(supplier.desk.place(order))
    supplier.faults.add([Rule(action="product_updates")])
    supplier.announce(supplier.desk.place(order, Circumstances(accept_duplicate=True)))
    await eventually(lambda: supplier.webhooks.counts.delivered == 4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    supplier.store.close()
    events = [each["X-Event-Name"] for each in shop.headers]
    assert events == ["order.status", "order.status", "product.update", "product.update"]
    assert all(follows_the_contract(event, body) for event, body in zip(events, shop.bodies, strict=True))
    assert shop.bodies[2] == {
        "kinguinId": 310002,
        "productId": product("02"),
        "qty": 49_994,
        "textQty": 49_994,
        "cheapestOfferId": [offer("12")],
        "updatedAt": "2026-09-21T14:13:20.000+00:00",
    }


async def test_k61_a_flood_is_about_products_that_nobody_sells_here() -> None:
    shop = Shop()
    async with sending(shop) as webhooks:
        webhooks.flood(300, per_second=10_000, updated_at=0)
        await eventually(lambda: webhooks.counts.delivered == 300)
    assert {each["X-Event-Name"] for each in shop.headers} == {"product.update"}
    ids = {body["productId"] for body in shop.bodies}
    assert len(ids) == 300
    assert not ids & BY_ID.keys()
    assert follows_the_contract("product.update", shop.bodies[0])


async def test_a_flood_keeps_its_pace_and_can_be_stopped() -> None:
    shop = Shop()
    async with sending(shop) as webhooks:
        webhooks.flood(1000, per_second=1, updated_at=0)
        await eventually(lambda: webhooks.counts.delivered == 1)
        assert webhooks.waiting == 1
        webhooks.forget()
        assert webhooks.waiting == 0


@pytest.mark.parametrize(
    ("older", "events"),
    [
        (None, ["order.status", "order.status"]),
        ("besides", ["order.status", "order.complete", "order.status"]),
        ("instead", ["order.status", "order.complete"]),
    ],
)
async def test_k61_older_stores_are_told_of_completed_orders_only(
    older: Literal["besides", "instead"] | None, events: list[str]
) -> None:
    shop = Shop()
    async with sending(shop, calm=Calm(older=older)) as webhooks:
        webhooks.announce(change(1, "processing"))
        webhooks.announce(change(1, "completed"))
        await eventually(lambda: webhooks.counts.delivered == len(events))
    assert [each["X-Event-Name"] for each in shop.headers] == events
    if older:
        assert shop.bodies[1] == {
            "orderId": "P1",
            "orderExternalId": "mine-1",
            "updatedAt": "2020-10-16T11:24:08.025+00:00",
        }


def test_rules_about_webhooks_replace_one_another_and_count() -> None:
    faults = Faults(1)
    assert (faults.order_complete(), faults.wants_product_updates(), faults.most_failed_webhooks()) == (
        None,
        False,
        1000,
    )
    faults.add([Rule(action="order_complete", instead=True), Rule(action="disable_webhooks", limit=7)])
    assert (faults.order_complete(), faults.most_failed_webhooks()) == ("instead", 7)
    faults.add([Rule(action="order_complete"), Rule(action="product_updates", count=1)])
    assert (faults.order_complete(), faults.wants_product_updates(), faults.wants_product_updates()) == (
        "besides",
        True,
        False,
    )


async def test_twice_means_twice() -> None:
    shop = Shop()
    async with sending(shop, "twice") as webhooks:
        webhooks.announce(change())
        await eventually(lambda: webhooks.counts.delivered == 2)
    assert shop.bodies[0] == shop.bodies[1]


async def test_a_forged_webhook_lies_and_does_not_know_the_secret() -> None:
    shop = Shop()
    async with sending(shop, "forged") as webhooks:
        webhooks.announce(change())
        await eventually(lambda: len(shop.bodies) == 2)
    assert [body["status"] for body in shop.bodies] == ["refunded", "completed"]
    assert [each["X-Event-Secret"] == SECRET for each in shop.headers] == [False, True]


async def test_late_and_never() -> None:
    shop = Shop()
    async with sending(shop, "late", 60) as late, sending(shop, "never") as never:
        late.announce(change())
        never.announce(change())
        await asyncio.sleep(0)
        assert (late.waiting, never.waiting, never.counts.suppressed) == (1, 0, 1)
        late.forget()
        assert late.waiting == 0
    assert shop.bodies == []
