"""The switch of buying in memory, over the rows of the purchases that wait for it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kinguin_gateway.domain.purchase import KeyRef, Purchase, PurchaseState
from kinguin_gateway.domain.switching import BuyingStatus, PauseCause
from kinguin_gateway.ports.switch import SwitchOrder


@dataclass
class Row:
    purchase: Purchase
    request_id: str
    lease_end: datetime | None = None
    next_look_time: datetime | None = None
    verify_time: datetime | None = None
    keys: list[KeyRef] = field(default_factory=list)
    # The attempt at which it was withdrawn; there must never be another.
    last_attempt: int | None = None


class FakeSwitch:
    """Whether one database of purchases buys."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.rows: dict[str, Row] = {}
        self.cause = PauseCause.NONE
        self.released: list[str] = []
        # As if the database had been restored: until then, ids that are new may have been sent before.
        self.caution_end = self.forgotten_deadline = datetime.min.replace(tzinfo=UTC)

    def _forgot(self) -> bool:
        return self.now() < self.caution_end

    async def status(self) -> BuyingStatus:
        parked = [row.purchase.create_time for row in self.rows.values() if row.purchase.parked]
        caution_end = self.caution_end if self._forgot() else None
        return BuyingStatus(self.cause, "", self.now(), len(parked), caution_end, min(parked, default=None))

    async def pause(self, order: SwitchOrder) -> BuyingStatus:  # noqa: ARG002 # the port's
        self.cause = PauseCause.OPERATOR
        return await self.status()

    async def resume(self, order: SwitchOrder) -> BuyingStatus:  # noqa: ARG002 # the port's
        self.cause = PauseCause.NONE
        return await self.status()

    async def release(self, limit: int, *, balance_cents: int | None) -> int:
        if self.cause is PauseCause.OPERATOR:
            return 0
        unsettled = {PurchaseState.INTENDED, PurchaseState.IN_DOUBT}
        pending = [row for row in self.rows.values() if row.purchase.state in unsettled and not row.purchase.parked]
        left = None if balance_cents is None else balance_cents - sum(_most_cents(row) for row in pending)
        count = 0
        for row in [row for row in self.rows.values() if row.purchase.parked][:limit]:
            left = None if left is None else left - _most_cents(row)
            if left is not None and left < 0:
                break
            row.purchase = replace(row.purchase, parked=False)
            self.released.append(row.purchase.intent.external_id)
            count += 1
        if self.cause is PauseCause.UNAUTHORIZED or not any(row.purchase.parked for row in self.rows.values()):
            self.cause = PauseCause.NONE
        return count


def _most_cents(row: Row) -> int:
    return row.purchase.intent.quantity * row.purchase.intent.max_unit_cents
