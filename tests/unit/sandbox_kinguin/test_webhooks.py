import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sandbox.kinguin import webhooks as module
from sandbox.kinguin.faults import WebhookMode
from sandbox.kinguin.orders import Change
from sandbox.kinguin.webhooks import Headers, Webhooks

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


def change(number: int = 1, status: str = "completed") -> Change:
    return Change(f"P{number}", f"mine-{number}", status, 1_602_847_448.025)


@asynccontextmanager
async def sending(shop: Shop, mode: WebhookMode = "normal", seconds: float = 0.0) -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(shop.post, secret=SECRET, mode=lambda: (mode, seconds), seed=1)
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
