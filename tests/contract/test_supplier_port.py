"""What every supplier behind the port promises: the HTTP client against the simulator, and the fake of unit tests."""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.secret import SecretBytes
from kinguin_gateway.adapters.kinguin_http import KinguinHttp
from kinguin_gateway.domain.guard import NoAnswer, NotSent, Outcome, Rejected, Taken, classify
from kinguin_gateway.domain.purchase import (
    Intent,
    OrderKey,
    Product,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.domain.returning import TakenReturn
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.supplier import OrderFilter, SendWindow, SuppliedKey, Supplier

from tests.integration.supplier_simulator import API_KEY, LANTERN, SupplierSimulator
from tests.unit.kinguin_gateway.fakes import INTENT, FakeSupplier, Mood, a_turnstile, deliver

LONG = timedelta(seconds=10)
DAY = timedelta(days=1)
UNKNOWN = "65a0c1d2e3f40516273800ff"


class Bench(ABC):
    """A supplier, and how to make it misbehave."""

    supplier: Supplier

    def __init__(self) -> None:
        self.intent = replace(INTENT, external_id=f"kf-{uuid.uuid4()}", product_id=LANTERN)

    async def place(self, intent: Intent | None = None) -> SupplierOrder:
        reply = await self.supplier.place_order(intent or self.intent, SendWindow(SystemClock(), LONG))
        assert isinstance(reply, Taken)
        return reply.order

    async def found(self) -> list[SupplierOrder]:
        lookup = await self.supplier.find_orders(self.intent.external_id, start_time=datetime.now(UTC))
        assert lookup.complete
        return list(lookup.orders)

    async def searched(self, **wanted: Any) -> list[str]:
        """Return the ids of the orders that a search shows."""
        pages = self.supplier.search_orders(OrderFilter(**wanted))
        return [order.supplier_order_id async for page in pages for order in page]

    @abstractmethod
    def lose_next_answer(self) -> None: ...

    @abstractmethod
    def go_away(self) -> None: ...

    @abstractmethod
    def sell_out(self) -> None: ...

    @abstractmethod
    def reject_reuse(self) -> None: ...

    @abstractmethod
    def fail_searches(self) -> None: ...

    @abstractmethod
    async def deliver(self, order: SupplierOrder) -> None: ...


class HttpBench(Bench):
    def __init__(self, supplier: KinguinHttp, simulator: SupplierSimulator) -> None:
        super().__init__()
        self.supplier = supplier
        self._simulator = simulator

    def lose_next_answer(self) -> None:
        self._simulator.misbehave("drop_answer", operation="placeOrder", count=1)

    def sell_out(self) -> None:
        self._simulator.misbehave("out_of_stock")

    def reject_reuse(self) -> None:
        """It does by itself."""

    def fail_searches(self) -> None:
        self._simulator.misbehave("status", operation="searchOrders", status=503)

    def go_away(self) -> None:
        self._simulator.misbehave("status", operation="*", status=503)

    async def deliver(self, order: SupplierOrder) -> None:
        async with asyncio.timeout(10):
            while (await self._state(order)) is not SupplierOrderState.COMPLETED:  # noqa: ASYNC110 # another process
                await asyncio.sleep(0.02)

    async def _state(self, order: SupplierOrder) -> SupplierOrderState | None:
        shown = await self.supplier.read_order(order.supplier_order_id)
        return None if shown is None else shown.state


class FakeBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeSupplier()
        self.fake.products[LANTERN] = Product(
            product_id=LANTERN,
            name="Lantern Hollow",
            price_cents=749,
            available=10,
            preorder=False,
            excluded_countries=(),
            activation_details="",
            update_time=datetime.now(UTC),
        )
        self.supplier = self.fake

    def lose_next_answer(self) -> None:
        moods = iter([Mood(reply=NoAnswer("reset"))])
        self.fake.next_mood = lambda: next(moods, Mood())

    def sell_out(self) -> None:
        self.fake.next_mood = lambda: Mood(take=False)

    def reject_reuse(self) -> None:
        self.fake.rejects_reuse = True

    def fail_searches(self) -> None:
        self.fake.search_fails = lambda: True

    def go_away(self) -> None:
        self.fake.away = True

    async def deliver(self, order: SupplierOrder) -> None:
        quantity = self.intent.quantity
        states = [OrderKey(f"key-{number}", SupplierKeyState.DELIVERED) for number in range(quantity)]
        delivered = deliver(order, quantity, SupplierOrderState.COMPLETED)
        self.fake.show(replace(delivered, lines=[replace(line, keys=states) for line in delivered.lines]))
        self.fake.keys[order.supplier_order_id] = [
            SuppliedKey(f"key-{number}", LANTERN, "text/plain", SecretBytes(b"AAAA-%d" % number))
            for number in range(quantity)
        ]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupplierSimulator]:
    simulator = SupplierSimulator(tmp_path_factory.mktemp("supplier"))
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(params=["http", "fake"])
async def bench(request: pytest.FixtureRequest, simulator: SupplierSimulator) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench()
        return
    simulator.behave()
    async with KinguinHttp.open(
        simulator.base,
        api_key=API_KEY,
        auth="x-api-key",
        turnstile=a_turnstile(SystemClock(), concurrency=8),
        concurrency=8,
        call_limit=LONG,
    ) as supplier:
        yield HttpBench(supplier, simulator)


async def test_an_order_is_taken_found_and_read(bench: Bench) -> None:
    order = await bench.place()
    (found,) = await bench.found()
    shown = await bench.supplier.read_order(order.supplier_order_id)
    assert shown is not None
    assert found.supplier_order_id == shown.supplier_order_id == order.supplier_order_id
    assert found.external_id == bench.intent.external_id
    assert (shown.quantity, shown.lines[0].product_id) == (2, LANTERN)
    assert shown.charged_cents is not None


async def test_k43_nothing_is_found_under_an_unknown_reference(bench: Bench) -> None:
    await bench.place(replace(bench.intent, external_id=bench.intent.external_id + "-other"))
    assert await bench.found() == []


async def test_an_order_that_is_not_there_is_none(bench: Bench) -> None:
    assert await bench.supplier.read_order("PHSNONE0000") is None


async def test_after_the_window_nothing_is_sent(bench: Bench) -> None:
    window = SendWindow(SystemClock(), timedelta(0))
    assert isinstance(await bench.supplier.place_order(bench.intent, window), NotSent)
    assert await bench.found() == []


async def test_k64_a_lost_answer_is_in_doubt_and_the_order_is_found(bench: Bench) -> None:
    bench.lose_next_answer()
    reply = await bench.supplier.place_order(bench.intent, SendWindow(SystemClock(), LONG))
    assert classify(reply, bench.intent) is Outcome.IN_DOUBT
    assert len(await bench.found()) == 1


async def test_k24_a_used_reference_is_in_doubt(bench: Bench) -> None:
    bench.reject_reuse()
    await bench.place()
    reply = await bench.supplier.place_order(bench.intent, SendWindow(SystemClock(), LONG))
    assert classify(reply, bench.intent) is Outcome.IN_DOUBT
    assert len(await bench.found()) == 1


async def test_k64_a_clear_no_is_refused_and_nothing_is_bought(bench: Bench) -> None:
    bench.sell_out()
    reply = await bench.supplier.place_order(bench.intent, SendWindow(SystemClock(), LONG))
    assert classify(reply, bench.intent) is Outcome.REFUSED
    assert await bench.found() == []


async def test_k64_a_search_that_fails_is_no_empty_search(bench: Bench) -> None:
    bench.fail_searches()
    with pytest.raises(SupplierUnavailable):
        await bench.found()


async def test_k44_keys_come_in_pages_and_none_before_they_are_delivered(bench: Bench) -> None:
    order = await bench.place()
    await bench.deliver(order)
    keys = [key async for page in bench.supplier.key_pages(order.supplier_order_id) for key in page]
    assert len({key.supplier_key_id for key in keys}) == bench.intent.quantity
    assert {(key.content_type, key.product_id) for key in keys} == {("text/plain", LANTERN)}
    assert all(key.value is not None and key.value.expose() for key in keys)
    shown = await bench.supplier.read_order(order.supplier_order_id)
    assert shown is not None
    assert (shown.state, shown.delivered_count) == (SupplierOrderState.COMPLETED, bench.intent.quantity)


async def test_k8_a_product_that_is_not_sold_is_none(bench: Bench) -> None:
    product = await bench.supplier.read_product(LANTERN)
    assert product is not None
    assert (product.cheapest_cents, product.available_quantity > 0) == (749, True)
    assert await bench.supplier.read_product("65a0c1d2e3f40516273800ff") is None


async def test_the_supplier_says_that_it_is_there(bench: Bench) -> None:
    health = await bench.supplier.check()
    assert (health.reachable, health.authorized, health.detail) == (True, True, "")
    assert health.balance_cents is not None


async def test_a_turn_lets_in(bench: Bench) -> None:
    async with bench.supplier.turn():
        await bench.place()


async def test_k42_orders_are_searched_the_newest_first(bench: Bench) -> None:
    first = await bench.place()
    second = await bench.place(replace(bench.intent, external_id=bench.intent.external_id + "-other"))
    both = first.supplier_order_id, second.supplier_order_id
    seen = [each for each in await bench.searched(product_id=LANTERN) if each in both]
    assert seen == [second.supplier_order_id, first.supplier_order_id]


async def test_every_filter_of_a_search_narrows_it(bench: Bench) -> None:
    order = await bench.place()
    await bench.deliver(order)
    shown = await bench.supplier.read_order(order.supplier_order_id)
    assert shown is not None
    assert shown.create_time is not None
    ours = [order.supplier_order_id]
    reference = bench.intent.external_id
    assert await bench.searched(external_id=reference) == ours
    assert await bench.searched(supplier_order_id=order.supplier_order_id) == ours
    for fitting, other in (
        ({"product_id": LANTERN}, {"product_id": UNKNOWN}),
        ({"state": SupplierOrderState.COMPLETED}, {"state": SupplierOrderState.CANCELED}),
        ({"preorder": False}, {"preorder": True}),
        ({"start_time": shown.create_time}, {"start_time": shown.create_time + DAY}),
        ({"end_time": shown.create_time + timedelta(seconds=1)}, {"end_time": shown.create_time}),
    ):
        assert await bench.searched(external_id=reference, **fitting) == ours
        assert await bench.searched(external_id=reference, **other) == []


async def test_k49_keys_go_back_once(bench: Bench) -> None:
    order = await bench.place()
    await bench.deliver(order)
    taken = await bench.supplier.return_keys(order.supplier_order_id)
    assert isinstance(taken, TakenReturn)
    assert len({key.supplier_key_id for key in taken.keys}) == bench.intent.quantity
    again = await bench.supplier.return_keys(order.supplier_order_id)
    assert isinstance(again, Rejected)
    assert (again.problem.kind, bool(again.problem.trace)) == ("OrderNotSupported", True)


async def test_an_order_that_is_not_there_cannot_go_back(bench: Bench) -> None:
    reply = await bench.supplier.return_keys("PHSNONE0000")
    assert isinstance(reply, Rejected)
    assert (reply.status, reply.problem.kind) == (404, "OrderNotFound")


async def test_k16_products_that_changed_since_are_told_and_no_others(bench: Bench) -> None:
    known = await bench.supplier.changed_products([LANTERN, UNKNOWN], since=None)
    assert [(product.product_id, product.cheapest_cents) for product in known] == [(LANTERN, 749)]
    (product,) = known
    assert product.update_time is not None
    since = product.update_time - DAY
    assert [each.product_id for each in await bench.supplier.changed_products([LANTERN], since=since)] == [LANTERN]
    assert await bench.supplier.changed_products([LANTERN], since=product.update_time + DAY) == []


async def test_k65_the_balance_is_read_in_cents(bench: Bench) -> None:
    assert await bench.supplier.read_balance() == (await bench.supplier.check()).balance_cents


async def test_a_supplier_that_is_away_is_unavailable_whatever_is_read(bench: Bench) -> None:
    bench.go_away()
    with pytest.raises(SupplierUnavailable):
        await bench.searched()
    with pytest.raises(SupplierUnavailable):
        await bench.supplier.changed_products([LANTERN], since=None)
    with pytest.raises(SupplierUnavailable):
        await bench.supplier.read_balance()
    with pytest.raises(SupplierUnavailable):
        await bench.supplier.read_product(LANTERN)
