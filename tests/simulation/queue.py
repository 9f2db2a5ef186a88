"""The queue: every event is delivered until it is acknowledged, late, again, and in any order."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from chassis.errors import KeyferryError, ServiceUnavailable
from fulfillment.domain.machine import IllegalSignal

from tests.simulation.network import Died

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.network import Host, Sky
    from tests.simulation.replica import Replica
    from tests.simulation.rows import Transaction

    Handler = Callable[["Replica", "Transaction"], Awaitable[object]]

ACK_WAIT = 3.0
MOST_DELIVERIES = 60


class Queue:
    """Delivers events to some replica of fulfillment, which handles each in one transaction with its inbox."""

    def __init__(self, sky: Sky, host: Host[Replica]) -> None:
        self._sky = sky
        self._host = host
        self._deliveries = Counter[str]()
        self.under_way = 0
        self.faults: list[str] = []

    def publish(self, event_id: str, handle: Handler) -> None:
        self.under_way += 1
        self._deliver_in(self._late(), event_id, handle)

    def hint(self, event_id: str, handle: Handler) -> None:
        """Publish what may as well be lost."""
        if not self._sky.strikes(self._sky.weather.lost):
            self.publish(event_id, handle)

    def _late(self) -> float:
        luck, sky = self._sky.luck, self._sky
        return (
            0.001 if sky.is_clear or not sky.strikes(sky.weather.slow) else luck.pick((0.1, 2.0, 20.0)) * luck.random()
        )

    def _deliver_in(self, seconds: float, event_id: str, handle: Handler) -> None:
        self._sky.loop.call_later(seconds, self._start, event_id, handle)

    def _start(self, event_id: str, handle: Handler) -> None:
        try:
            process, replica = self._host.find()
        except ServiceUnavailable:
            self._deliver_in(1.0, event_id, handle)
            return
        task = process.spawn(self._take(replica, event_id, handle))
        task.add_done_callback(lambda done: self._ended(event_id, handle, acknowledged=_answer(done)))

    async def _take(self, replica: Replica, event_id: str, handle: Handler) -> bool:
        """Handle an event; False where it is not acknowledged."""
        try:
            async with replica.rows.transaction() as transaction:
                if await transaction.is_first(event_id):
                    await handle(replica, transaction)
        except (ServiceUnavailable, Died):
            return False
        except (KeyferryError, IllegalSignal, LookupError) as error:
            self.faults.append(f"{event_id}: {error!r}")
        return True

    def _ended(self, event_id: str, handle: Handler, *, acknowledged: bool) -> None:
        self._deliveries[event_id] += 1
        again = not acknowledged or self._sky.strikes(self._sky.weather.answer_lost)
        if again and self._deliveries[event_id] < MOST_DELIVERIES:
            self._deliver_in(ACK_WAIT * self._sky.luck.random(), event_id, handle)
            return
        if not acknowledged:
            self.faults.append(f"{event_id}: was never handled")
        self.under_way -= 1


def _answer(task: object) -> bool:
    with suppress(BaseException):
        return bool(task.result())  # type: ignore[attr-defined] # a task of ours
    return False
