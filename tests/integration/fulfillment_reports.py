"""A replica's reconciliation over a real database, with the books of the others and vault's keys in memory."""

from collections.abc import Sequence
from dataclasses import replace

from chassis.clock import Clock
from chassis.database import Database
from chassis.outbox import Outbox
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.adapters.reports import PostgresReports
from fulfillment.adopting import Adopter
from fulfillment.domain.model import ItemId, KeyId, OrderId
from fulfillment.domain.policy import Policy
from fulfillment.domain.reconciliation import Limits
from fulfillment.mending import Mending
from fulfillment.moving import Mover
from fulfillment.ports.vault import FoundKey, NoWord, RevokeAnswer
from fulfillment.reconciling import Reconciling
from fulfillment.working import Bench

from tests.unit.fulfillment.fakes import FakeVault
from tests.unit.fulfillment.reconciled_world import FakeLedgers

OUTBOX = Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"})


class LedgerVault(FakeVault):
    """Vault, as its book has it: the keys of an order come from the order at the supplier that is named after it."""

    def __init__(self, ledgers: FakeLedgers) -> None:
        super().__init__()
        self._ledgers = ledgers

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:
        return [
            FoundKey(
                KeyId(each.key_id),
                ItemId("a"),
                f"S-{order_id}",
                "text/plain",
                held=each.state == "HELD",
                taken_back=each.state in {"REVOKED", "SHREDDED"},
                open_time=each.open_time,
            )
            for each in self._ledgers.sealed.values()
            if each.order_id == order_id
        ]

    def take_away(self, key_ids: Sequence[KeyId]) -> RevokeAnswer:
        for key_id in key_ids:
            self._ledgers.sealed[key_id] = replace(self._ledgers.sealed[key_id], state="REVOKED")
        return super().take_away(key_ids)


def a_reconciling(
    database: Database, reports: PostgresReports, ledgers: FakeLedgers, *, clock: Clock, limits: Limits
) -> Reconciling:
    """Put together what one replica runs."""
    bench = Bench(PostgresOrders(database, OUTBOX), Mover(Policy()), clock)
    mending = Mending(reports, ledgers, Adopter(bench, LedgerVault(ledgers)))
    return Reconciling(reports, ledgers, mending, clock=clock, limits=limits)
