import asyncio
from collections.abc import Coroutine
from typing import Any

from fulfillment.domain.model import Fulfillment, OrderId, Reason, State
from fulfillment.domain.payments import Paid, PaymentVerdict
from fulfillment.metrics import WATCHERS
from fulfillment.watching import LOOK_SECONDS, STREAM_SECONDS, Watching

from tests.unit.fulfillment.examples import DIGEST, HandClock, an_order
from tests.unit.fulfillment.memory_orders import MemoryOrders
from tests.unit.fulfillment.office import Office
from tests.unit.simulated import SimulatedClock, simulate

ORDER_ID = OrderId("order-1")

UNPAID = Paid(PaymentVerdict.SHORT, None, None)


class Scene:
    """One order and one stream that watches it, on simulated time."""

    def __init__(self) -> None:
        self.orders = MemoryOrders()
        self.watching = Watching(self.orders)
        self.seen: list[tuple[float, Fulfillment]] = []

    async def add(self) -> None:
        async with self.orders.transaction() as transaction:
            await Office().intake.take_order(transaction, an_order(), DIGEST)

    async def move(self, state: State, *, notify: str | None = ORDER_ID) -> None:
        async with self.orders.transaction() as transaction:
            now = HandClock().now()
            await transaction.save_summary(ORDER_ID, state, Reason.NONE, now=now, paid=UNPAID, pay_time=None)
        if notify is not None:
            self.watching.changed(notify)

    async def watch(self) -> None:
        async for found in self.watching.watch(ORDER_ID):
            self.seen.append((SimulatedClock().elapsed(), found))

    def states(self) -> list[State]:
        return [found.state for _, found in self.seen]


def play(scene: Scene, *acts: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        await scene.add()
        stream = asyncio.create_task(scene.watch())
        for act in acts:
            await asyncio.sleep(1)
            await act
        await stream

    simulate(run())
    assert WATCHERS._value.get() == 0


def test_a_stream_begins_with_the_present_and_ends_when_nothing_can_change() -> None:
    scene = Scene()
    play(scene, scene.move(State.PENDING), scene.move(State.READY), scene.move(State.DELIVERED))
    assert scene.states() == [State.AWAITING_PAYMENT, State.PENDING, State.READY, State.DELIVERED]
    assert [time for time, _ in scene.seen] == [0, 1, 2, 3]


def test_a_notification_that_was_lost_costs_a_wait_only() -> None:
    scene = Scene()
    play(scene, scene.move(State.DELIVERED, notify=None))
    assert scene.states() == [State.AWAITING_PAYMENT, State.DELIVERED]
    assert scene.seen[-1][0] == LOOK_SECONDS


def test_after_a_gap_everybody_looks() -> None:
    scene = Scene()
    play(scene, scene.move(State.DELIVERED, notify=""))
    assert [time for time, _ in scene.seen] == [0, 1]


def test_the_change_of_another_order_tells_nothing() -> None:
    scene = Scene()
    play(scene, scene.move(State.PENDING, notify="order-2"), scene.move(State.DELIVERED))
    assert scene.states() == [State.AWAITING_PAYMENT, State.DELIVERED]


def test_a_wake_up_without_a_change_tells_nothing() -> None:
    async def call(scene: Scene) -> None:
        scene.watching.changed(ORDER_ID)

    scene = Scene()
    play(scene, call(scene), call(scene), scene.move(State.DELIVERED))
    assert scene.states() == [State.AWAITING_PAYMENT, State.DELIVERED]


def test_a_stream_ends_after_a_while_so_that_clients_spread_again() -> None:
    scene = Scene()
    play(scene)
    assert scene.states() == [State.AWAITING_PAYMENT]

    async def age() -> float:
        await scene.watch()
        return SimulatedClock().elapsed()

    assert simulate(age()) == STREAM_SECONDS


def test_a_stream_of_no_order_ends_at_once() -> None:
    scene = Scene()
    simulate(scene.watch())
    assert not scene.seen


def test_many_streams_of_one_order_are_told_each_and_leave_nothing_behind() -> None:
    scene, other = Scene(), Scene()
    other.orders, other.watching = scene.orders, scene.watching

    async def run() -> None:
        await scene.add()
        streams = [asyncio.create_task(watcher.watch()) for watcher in (scene, other)]
        await asyncio.sleep(1)
        assert WATCHERS._value.get() == 2
        await scene.move(State.DELIVERED)
        await asyncio.gather(*streams)

    simulate(run())
    assert scene.states() == other.states() == [State.AWAITING_PAYMENT, State.DELIVERED]
    assert not scene.watching._waiting


def test_a_stream_whose_client_left_leaves_nothing_behind() -> None:
    scene = Scene()

    async def run() -> None:
        await scene.add()
        stream = asyncio.create_task(scene.watch())
        await asyncio.sleep(1)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)

    simulate(run())
    assert not scene.watching._waiting
    assert WATCHERS._value.get() == 0


def test_a_drain_ends_every_stream_at_once() -> None:
    scene = Scene()

    async def drain() -> None:
        scene.watching.end()

    play(scene, drain())
    assert scene.states() == [State.AWAITING_PAYMENT]
