"""Takes the keys of an order that vault has and nobody was told of into its rows, as reconciliation asks for it.

1 ask vault what it has                     dies here: nothing happened
2 commit the names that are unknown         dies here: known now; the next report has revoked what nobody is to open
3 have vault revoke what nobody is to open  dies here: as above
"""

from collections.abc import Sequence

from chassis.failpoints import effect

from fulfillment.arriving import is_awaited, store_strays, strays
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Fulfillment, KeyId, Line, OrderId, Purchase, State
from fulfillment.ports.supplier import Buying
from fulfillment.ports.vault import FoundKey, NoWord, Revoked, Vault
from fulfillment.working import Bench


class Adopter:
    """Adopts keys. Asked again it changes nothing."""

    def __init__(self, bench: Bench, vault: Vault) -> None:
        self._bench = bench
        self._vault = vault

    async def adopt(self, order_id: OrderId) -> frozenset[KeyId] | None:
        """Return the keys of an order that its rows and vault agree on now and did not before; None without an answer.

        Where a key is wanted its owner can open it; else it is revoked, here and at vault. One that came from no
        purchase of the order is left as it is.
        """
        found = await effect("fulfillment.adopt.find", lambda: self._vault.keys_of(order_id))
        if isinstance(found, NoWord):
            return None
        order = await self._load(order_id)
        if order is None:
            return frozenset()
        adopted = set[KeyId]()
        for line in order.lines:
            for purchase in line.purchases:
                if strays(found, purchase, line.keys):
                    adopted |= await self._take_in(order, line, purchase, found)
        revoked = await self._revoke_spare(order_id, found)
        return None if revoked is None else frozenset(adopted | revoked)

    async def _load(self, order_id: OrderId) -> Fulfillment | None:
        async with self._bench.orders.transaction() as transaction:
            return await transaction.load(order_id)

    async def _take_in(
        self, order: Fulfillment, line: Line, purchase: Purchase, found: Sequence[FoundKey]
    ) -> frozenset[KeyId]:
        customer = order.order.customer
        buying = Buying(purchase, line.item, customer.customer_id, customer.country_code)
        async with self._bench.turn(buying, "adopt") as turn:
            fresh = await store_strays(turn, found)
            turn.has_news = bool(fresh)
            if fresh and not is_awaited(turn.purchase):
                await turn.move(turn.purchase, Signal.KEYS_ARRIVED)
            elif fresh and turn.purchase.state is State.AWAITING_KEYS:
                # Whoever collects next finds them known, and goes on from there.
                await turn.transaction.hasten(purchase.external_id, now=turn.now)
        return frozenset(key.key_id for key in fresh)

    async def _revoke_spare(self, order_id: OrderId, found: Sequence[FoundKey]) -> frozenset[KeyId] | None:
        """Have vault revoke what our rows let nobody open and it still would."""
        order = await self._load(order_id)
        noted = {
            key.key_id: key
            for line in (order.lines if order else ())
            for key in line.keys
            if key.revoke_time is not None and key.open_time is None
        }
        spare = [each.key_id for each in found if each.key_id in noted and not each.taken_back]
        if not spare:
            return frozenset()
        answer = await effect(
            "fulfillment.adopt.revoke", lambda: self._vault.revoke_keys(order_id, spare, why="not needed")
        )
        if isinstance(answer, NoWord):
            return None
        return frozenset(spare) if isinstance(answer, Revoked) else frozenset()
