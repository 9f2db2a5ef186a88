"""Forgets a customer: first in vault, then in our rows, and last, by an event, in audit.

1 look whether every order is settled      dies here: nothing happened
2 vault's EraseCustomer                     dies here: the repeat is answered the same by vault, and goes on
3 commit a batch of orders without them     dies here: the repeat goes on with the next batch
4 commit a piece of events and answers      dies here: the repeat looks through all of them, and finds fewer
5 commit the fact, the event to audit and   dies here: the repeat is answered; the relay publishes the event
  the answer

A batch that is done is not found again, and the pseudonym is derived from the request: whoever goes on uses the same.
An order that comes while it is under way stays the customer's, and so does one with a key that vault has not destroyed:
it came after vault had forgotten. ADR 15 says what is kept, and why audit hears it last.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.failpoints import effect

from fulfillment import facts
from fulfillment.collecting import Openings
from fulfillment.domain.erasure import is_settled, may_still_be_paid, unopened
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.errors import CustomerNotSettled
from fulfillment.giving_up import GivingUp
from fulfillment.operating import Asked
from fulfillment.ports.keeping import ErasedKeys, Erasures, ErasureTransaction, KeyKeeper, VaultErasure
from fulfillment.ports.orders import Telling
from fulfillment.ports.vault import FoundKey, NoWord

# Few: their orders are locked together, and each is read as a whole.
BATCH = 20
# What an error names travels in HTTP/2 trailers, of which gRPC takes 8 KiB in all.
MOST_NAMED = 100
Fates = Mapping[KeyId, FoundKey]
"""What became of keys, by vault's word."""
_NAMESPACE = uuid.UUID("5f1d0a6e-7c52-4f0e-9a0f-2a4f6d1b9c33")


@dataclass(frozen=True, slots=True)
class ErasureWish:
    """A wish to forget a customer."""

    request_id: str
    customer_id: str = field(repr=False)
    forfeit_unopened: bool
    asked: Asked

    @property
    def pseudonym(self) -> str:
        """Who stands in the customer's place. It says of which request, and nothing of whom."""
        return f"erased-{uuid.uuid5(_NAMESPACE, f'pseudonym/{self.request_id}')}"

    @property
    def vault_request_id(self) -> str:
        """The id of what is asked of vault."""
        return str(uuid.uuid5(_NAMESPACE, f"vault/{self.request_id}"))


@dataclass(frozen=True, slots=True)
class ErasedCustomer:
    """What was done."""

    keys: ErasedKeys
    order_count: int
    kept_order_count: int


class Erasing:
    """Forgets customers. Any number of replicas may, also the same one."""

    def __init__(
        self, erasures: Erasures, keeper: KeyKeeper, giving_up: GivingUp, openings: Openings, *, clock: Clock
    ) -> None:
        self._erasures = erasures
        self._keeper = keeper
        self._giving_up = giving_up
        self._openings = openings
        self._clock = clock

    async def erase(self, wish: ErasureWish) -> ErasedCustomer:
        """Forget a customer in vault and here. Raises CustomerNotSettled, and what vault raises, before it has."""
        if unsettled := await self._unsettled(wish.customer_id):
            raise CustomerNotSettled(
                "orders of the customer are under way, or money of them is owed; nothing was changed",
                metadata={"order_ids": ",".join(unsettled)},
            )
        erasure = VaultErasure(wish.vault_request_id, wish.customer_id, wish.forfeit_unopened, reason=wish.asked.reason)
        keys = await effect("fulfillment.erase.call", lambda: self._keeper.erase_customer(erasure))
        erased = kept = 0
        after = ""
        # It ends: each batch begins after the one before.
        while order_ids := await self._orders_of(wish.customer_id, after):
            fates = {order_id: await self._fates(order_id) for order_id in order_ids}
            count = await self._erase_batch(wish, fates)
            after = order_ids[-1]
            erased, kept = erased + count, kept + len(order_ids) - count
        await self._erasures.strike(wish.customer_id, wish.pseudonym)
        return ErasedCustomer(keys, erased, kept)

    async def finish(self, transaction: Telling, wish: ErasureWish, erased: ErasedCustomer) -> None:
        """Tell that it is done, in the transaction of the answer; audit forgets the customer on hearing it."""
        now = self._clock.now()
        actor, reason = wish.asked.actor, wish.asked.reason
        details = {
            "order_count": str(erased.order_count),
            "kept_order_count": str(erased.kept_order_count),
            "forfeit_unopened": str(wish.forfeit_unopened).lower(),
            "pseudonym": wish.pseudonym,
            "reason": reason,
        }
        identity = [wish.request_id]
        await facts.record(
            transaction,
            "customer.orders_erased",
            "",
            now=now,
            identity=identity,
            actor=actor,
            details=details,
            request_id=wish.request_id,
        )
        await facts.tell_customer_erased(
            transaction, wish.customer_id, request_id=wish.request_id, actor=actor, now=now
        )

    async def _unsettled(self, customer_id: str) -> Sequence[OrderId]:
        """Return orders that are not settled, at most so many as are named."""
        unsettled: list[OrderId] = []
        after = ""
        # It ends: each page begins after the one before.
        while len(unsettled) < MOST_NAMED:
            async with self._erasures.transaction() as transaction:
                order_ids = await transaction.orders_of(customer_id, after=after, limit=BATCH)
                unsettled += [order_id for order_id in order_ids if not await _is_settled(transaction, order_id)]
            if not order_ids:
                break
            after = order_ids[-1]
        return unsettled[:MOST_NAMED]

    async def _orders_of(self, customer_id: str, after: str) -> Sequence[OrderId]:
        async with self._erasures.transaction() as transaction:
            return await transaction.orders_of(customer_id, after=after, limit=BATCH)

    async def _fates(self, order_id: OrderId) -> Fates:
        """Return what became at vault of the keys of an order that we do not know to be opened."""
        async with self._erasures.transaction() as transaction:
            found = await transaction.load(order_id)
        if found is None or not unopened(found):
            return {}
        keys = await self._keeper.keys_of(order_id)
        if isinstance(keys, NoWord):
            raise ServiceUnavailable("vault does not say what became of the keys; repeat the request")
        return {key.key_id: key for key in keys}

    async def _erase_batch(self, wish: ErasureWish, fates: Mapping[OrderId, Fates]) -> int:
        """Forget the customer in one batch of orders; return of how many they were removed."""
        now = self._clock.now()
        async with self._erasures.transaction("erase_orders") as transaction:
            done = [
                await self._erase_order(transaction, order_id, keys, wish.pseudonym, now)
                for order_id, keys in fates.items()
            ]
        return sum(done)

    async def _erase_order(
        self, transaction: ErasureTransaction, order_id: OrderId, fates: Fates, pseudonym: str, now: datetime
    ) -> bool:
        found = await transaction.load(order_id, lock=True)
        # It may have come, or been paid, after all orders were looked at, and its keys after vault has forgotten.
        if found is None or not is_settled(found, await transaction.refund_requests(order_id)):
            return False
        waiting = [key.key_id for key in unopened(found)]
        if not all(key_id in fates and fates[key_id].taken_back for key_id in waiting):
            return False
        for key_id in waiting:
            # Destroyed once its owner had opened it, of which vault's event has not come yet, or forfeited.
            if fates[key_id].open_time is not None:
                await self._openings.key_opened(transaction, key_id)
            else:
                await transaction.revoke_keys([key_id], now=now)
        if may_still_be_paid(found):
            await self._giving_up.cancel(transaction, found, (), by_staff=True, now=now)
        await transaction.forget_customer(order_id, pseudonym)
        return True


async def _is_settled(transaction: ErasureTransaction, order_id: OrderId) -> bool:
    found = await transaction.load(order_id)
    return found is None or is_settled(found, await transaction.refund_requests(order_id))
