"""kinguin-gateway's rows: the fakes of its own tests, shared by replicas that die, and the rows of returns."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from chassis.errors import ServiceUnavailable
from kinguin_gateway.domain.returning import KeyReturn, ReturnState
from kinguin_gateway.domain.switching import PauseCause

from tests.unit.kinguin_gateway.fakes import FakePurchases, Row
from tests.unit.simulated import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kinguin_gateway.domain.purchase import Purchase, SupplierOrder

    from tests.simulation.clock import News, WorldClock
    from tests.simulation.network import Process

LATER = EPOCH + timedelta(days=36500)


class GatewayDatabase:
    """What all replicas share. `changed` is called with each external id that there is news of."""

    def __init__(self, clock: WorldClock, news: News, changed: Callable[[str], None]) -> None:
        self.now = clock.now
        self.news = news
        self.changed = changed
        self.rows: dict[str, Row] = {}
        self.cause = PauseCause.NONE
        self.release_time = EPOCH
        self.returns: dict[str, KeyReturn] = {}
        self.return_times: dict[str, tuple[datetime | None, datetime | None]] = {}
        self.released: list[str] = []
        self.doubts = 0

    def next_look(self) -> datetime:
        return min(
            (
                max(row.next_look_time, row.lease_end or row.next_look_time)
                for row in self.rows.values()
                if row.next_look_time is not None
            ),
            default=LATER,
        )

    def next_verification(self) -> datetime:
        return min((row.verify_time for row in self.rows.values() if row.verify_time is not None), default=LATER)

    def next_return(self) -> datetime:
        return min(
            (max(look, lease or look) for look, lease in self.return_times.values() if look is not None), default=LATER
        )

    def next_due(self) -> datetime | None:
        release = LATER if self.cause is PauseCause.NONE else self.release_time
        due = min(self.next_look(), self.next_verification(), self.next_return(), release)
        return None if due >= LATER else due

    def note_surplus(self, number: str, external_id: str) -> None:
        """Write that an order is to be given back which its purchase does not keep."""
        if number not in self.returns and number != self.rows[external_id].purchase.supplier_order_id:
            now = self.now()
            self.returns[number] = KeyReturn(
                number, external_id, surplus=True, state=ReturnState.ASKED, create_time=now
            )
            self.return_times[number] = now, None
            self.news.tell()

    def tell_released(self) -> None:
        while self.released:
            self.changed(self.released.pop())


class GatewayRows(FakePurchases):
    """The rows as one process reaches them: it may die at each step, or not hear of a commit."""

    def __init__(self, database: GatewayDatabase, process: Process) -> None:
        super().__init__(database.now)
        self._database = database
        self._process = process
        self.rows = database.rows
        self.released = database.released
        self.step = self._step

    @property
    def cause(self) -> PauseCause:
        return self._database.cause

    @cause.setter
    def cause(self, cause: PauseCause) -> None:
        # The fake sets its own first one before it is connected.
        if "_database" in vars(self):
            self._database.cause = cause

    def of_order(self, order_id: str) -> Sequence[Purchase]:
        self._process.point()
        return [row.purchase for row in self.rows.values() if row.purchase.intent.order_id == order_id]

    async def _step(self, name: str) -> None:
        process, weather = self._process, self._process.sky.weather
        process.point()
        if process.sky.is_clear:
            if name == "after record":
                self._database.news.tell()
            return
        if process.sky.strikes(weather.pause):
            await asyncio.sleep(process.sky.luck.upto(0.05))
            process.point()
        if name.startswith("after"):
            self._database.news.tell()
            if process.sky.strikes(weather.lost_commit):
                raise ServiceUnavailable("the answer of the commit was lost")
        elif process.sky.strikes(weather.refused_commit):
            raise ServiceUnavailable("the database does not answer")

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        self._database.doubts += 1
        return await super().record_doubt(purchase, why=why, look=look)

    def _add_surplus(self, row: Row, surplus: Sequence[SupplierOrder]) -> None:
        for order in surplus:
            self._database.note_surplus(order.supplier_order_id, row.purchase.intent.external_id)

    def _tell(self, purchase: Purchase, order: SupplierOrder) -> None:  # noqa: ARG002 # it is only a hint
        self._database.changed(purchase.intent.external_id)


class GatewayReturns:
    """The rows of returns as one process reaches them: `kinguin_gateway.ports.returns.Returns`."""

    def __init__(self, database: GatewayDatabase, process: Process) -> None:
        self._database = database
        self._process = process

    async def of_purchases(self, external_ids: Sequence[str]) -> Mapping[str, Sequence[KeyReturn]]:
        self._process.point()
        found: dict[str, list[KeyReturn]] = {}
        for row in self._database.returns.values():
            if row.external_id in external_ids:
                found.setdefault(row.external_id, []).append(row)
        return found

    async def delivered_since(self, external_id: str) -> tuple[datetime | None, datetime]:  # noqa: ARG002 # always lately
        return None, self._database.now()

    async def ask(self, purchase: Purchase, *, request_id: str) -> KeyReturn:  # noqa: ARG002 # one for each purchase
        self._process.point()
        number, now = purchase.supplier_order_id, self._database.now()
        if number not in self._database.returns:
            self._database.returns[number] = KeyReturn(
                number, purchase.intent.external_id, surplus=False, state=ReturnState.ASKED, create_time=now
            )
            self._database.return_times[number] = now, None
            self._database.news.tell()
        self._process.point()
        return self._database.returns[number]

    async def ask_surplus(self, purchase: Purchase, surplus: Sequence[SupplierOrder]) -> None:
        self._process.point()
        for order in surplus:
            self._database.note_surplus(order.supplier_order_id, purchase.intent.external_id)
        self._process.point()

    async def claim(self, key_return: KeyReturn, *, lease: timedelta) -> bool:
        self._process.point()
        look, lease_end = self._database.return_times[key_return.supplier_order_id]
        if lease_end is not None and lease_end >= self._database.now():
            return False
        self._database.return_times[key_return.supplier_order_id] = look, self._database.now() + lease
        self._process.point()
        return True

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[KeyReturn]:
        self._process.point()
        now = self._database.now()
        due = [
            number
            for number, (look, end) in self._database.return_times.items()
            if look is not None and look <= now and (end is None or end < now)
        ][:limit]
        for number in due:
            self._database.return_times[number] = self._database.return_times[number][0], now + lease
        self._process.point()
        return [self._database.returns[number] for number in due]

    async def count_sending(self, key_return: KeyReturn) -> bool:
        self._process.point()
        row = self._database.returns[key_return.supplier_order_id]
        if row.sent_count != key_return.sent_count or row.state is not ReturnState.ASKED:
            return False
        self._database.returns[row.supplier_order_id] = replace(row, sent_count=row.sent_count + 1)
        self._process.point()
        return True

    async def record(self, key_return: KeyReturn, order: SupplierOrder | None, *, look: timedelta | None) -> KeyReturn:  # noqa: ARG002 # key states are not looked at
        self._process.point()
        before: Any = self._database.returns[key_return.supplier_order_id]
        self._database.returns[key_return.supplier_order_id] = key_return
        due = None if look is None else self._database.now() + look
        self._database.return_times[key_return.supplier_order_id] = due, None
        if before.state is not key_return.state:
            self._database.changed(key_return.external_id)
        self._process.point()
        return key_return
