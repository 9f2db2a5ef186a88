"""Forgetting customers in memory: their orders, and vault, which forgets them too."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc
from chassis.errors import RemoteError, ServiceUnavailable
from fulfillment.domain.erasure import FORGOTTEN
from fulfillment.domain.model import Customer, KeyId, Order, OrderId
from fulfillment.ports.keeping import DeliveryLog, ErasedKeys, VaultErasure
from fulfillment.ports.vault import FoundKey, NoWord

from tests.unit.fulfillment.memory_orders import MemoryOrders, MemoryTransaction


@dataclass
class MemoryErasures:
    """Implements `fulfillment.ports.keeping.Erasures` over orders in memory."""

    orders: MemoryOrders
    struck: list[tuple[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator["MemoryErasureTransaction"]:
        async with self.orders.transaction(step) as transaction:
            yield MemoryErasureTransaction(transaction.rows)

    async def strike(self, customer_id: str, pseudonym: str) -> None:
        self.struck.append((customer_id, pseudonym))


class MemoryErasureTransaction(MemoryTransaction):
    """One transaction over orders of a customer."""

    async def orders_of(self, customer_id: str, *, after: str, limit: int) -> Sequence[OrderId]:
        own = [row.order.order_id for row in self.rows.orders.values() if _owner(row.order) == customer_id]
        return sorted(order_id for order_id in own if order_id > after)[:limit]

    async def forget_customer(self, order_id: OrderId, pseudonym: str) -> None:
        row = self.rows.orders[order_id]
        order = replace(row.order, customer=Customer(pseudonym, ""))
        self.rows.orders[order_id] = replace(row, order=order, digest=FORGOTTEN, version=row.version + 1)
        mail = self.rows.mails.get(order_id)
        if mail is not None:
            waiting = replace(mail, run_at=None, lease_until=None, claim=mail.claim + 1, failure="")
            self.rows.mails[order_id] = waiting


def _owner(order: Order) -> str:
    return order.customer.customer_id


@dataclass
class FakeKeeper:
    """Forgets customers as vault does, and tells what was done with keys."""

    erasures: dict[str, VaultErasure] = field(default_factory=dict)
    unopened: bool = False
    is_away: bool = False
    logs: dict[KeyId, DeliveryLog] = field(default_factory=dict)
    keys: list[FoundKey] = field(default_factory=list)
    """What vault has of any order."""
    keys_away: bool = False

    async def erase_customer(self, erasure: VaultErasure) -> ErasedKeys:
        if self.is_away:
            raise ServiceUnavailable("vault does not answer")
        if self.unopened and not erasure.forfeit_unopened:
            raise RemoteError(
                "never opened",
                code=grpc.StatusCode.FAILED_PRECONDITION,
                reason="KEYS_UNOPENED",
                metadata={"unopened_count": "1", "order_ids": "order-1"},
            )
        assert self.erasures.setdefault(erasure.request_id, erasure) == erasure, "another body under the same id"
        return ErasedKeys(shredded_count=2, kept_count=1)

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:  # noqa: ARG002 # tests have one order
        return NoWord() if self.keys_away else self.keys

    async def delivery_log(self, key_id: KeyId) -> DeliveryLog:
        return self.logs[key_id]
