"""The verdict on a history: what the supplier sold, the rows, vault, mails and events must all tell one story."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fulfillment.domain.model import Fulfillment, Key, Line, Purchase, Reason, State
from fulfillment.domain.policy import actions, order_actions
from kinguin_gateway.domain.returning import ReturnState

from tests.unit.simulated import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.shapes import Told
    from tests.simulation.supplier import Sold
    from tests.simulation.vault import SealedKey
    from tests.simulation.world import World

_GONE = {State.CANCELED, State.REFUNDED}
_ENDS = {State.DELIVERED, State.PARTLY_CANCELED, State.SUPERSEDED, *_GONE}
_RESTS = {*_ENDS, State.READY, State.NEEDS_ATTENTION}
_ORDER_RESTS = _RESTS | {State.AWAITING_PAYMENT}


def broken_promises(world: World) -> list[str]:
    """Name everything that went wrong."""
    verdict = Verdict(world)
    return [*world.faults, *world.queue.faults, *verdict.all()]


class Verdict:
    """Compares what is left of a world once it is over."""

    def __init__(self, world: World) -> None:
        self.world = world
        found = [world.orders.fulfillment(order_id) for order_id in world.placed]
        self.orders = [each for each in found if each is not None]
        self.store = world.store.keys
        self.purchases: dict[str, Purchase] = {
            each.external_id: each for found in self.orders for each in found.purchases
        }
        self.sold: dict[str, list[Sold]] = {}
        for sold in world.account.sold:
            self.sold.setdefault(sold.intent.external_id, []).append(sold)
        self.told: dict[str, list[Told]] = {}
        for event in world.shop.heard.values():
            self.told.setdefault(event.subject, []).append(event)

    def all(self) -> Iterator[str]:
        if len(self.orders) != len(self.world.placed):
            yield "an order was lost"
        yield from self.bought()
        for found in self.orders:
            yield from self.ended(found)
            yield from self.told_of(found)
            yield from self.mailed(found)
            for line in found.lines:
                yield from self.key_or_money(found, line)
                for purchase in line.purchases:
                    yield from self.delivered(line, purchase)
        yield from self.vault()

    def bought(self) -> Iterator[str]:
        """Promise 1: once for each purchase, and exactly what was ordered."""
        for external_id, orders in self.sold.items():
            purchase = self.purchases.get(external_id)
            if len(orders) > 1:
                yield from self._given_back(external_id, orders)
            if purchase is None:
                yield f"{external_id}: bought and unknown to us"
            elif orders[0].intent.quantity != purchase.quantity:
                yield f"{external_id}: bought {orders[0].intent.quantity}, wanted {purchase.quantity}"
        for found in self.orders:
            for line in found.lines:
                own = [each for each in line.purchases if each.replaced_key_id is None]
                kept = sum(each.quantity for each in own if each.external_id in self.sold)
                if kept > line.item.quantity:
                    yield f"{line.item.item_id}: bought {kept}, ordered {line.item.quantity}"
                replaced = {key.key_id for key in line.keys if key.replace_time is not None}
                anew = Counter(each.replaced_key_id for each in line.purchases if each.external_id in self.sold)
                anew.pop(None, None)
                if set(anew) - replaced or any(count > 1 for count in anew.values()):
                    yield f"{line.item.item_id}: replaced more than once, or what nobody asked for"

    def _given_back(self, external_id: str, orders: Sequence[Sold]) -> Iterator[str]:
        """Whatever was bought beyond the order that is kept went back, as far as the supplier takes it."""
        database = self.world.gateway_database
        kept = database.rows[external_id].purchase.supplier_order_id
        for sold in orders:
            number = sold.order.supplier_order_id
            asked = database.returns.get(number)
            if number != kept and (asked is None or not asked.surplus or asked.state is ReturnState.ASKED):
                yield f"{external_id}: bought {len(orders)} times"

    def _own(self, purchase: Purchase) -> list[Sold]:
        """Return the supplier's orders of a purchase, the one that it keeps first."""
        orders = self.sold.get(purchase.external_id, [])
        return sorted(orders, key=lambda sold: sold.order.supplier_order_id != purchase.supplier_order_id)

    def ended(self, found: Fulfillment) -> Iterator[str]:
        """Every order ends, or says why not and what can be done."""
        order_id = found.order.order_id
        if found.state not in _ORDER_RESTS:
            yield f"{order_id}: ended as {found.state}"
        if found.state is State.NEEDS_ATTENTION and not found.reason:
            yield f"{order_id}: needs attention for no reason"
        possible = [
            action
            for line in found.lines
            for purchase in line.purchases
            for action in actions(purchase, line.keys_of(purchase.external_id))
        ]
        if found.state is State.NEEDS_ATTENTION and not possible and not order_actions(found):
            yield f"{order_id}: needs attention and nothing can be done"
        for purchase in found.purchases:
            if purchase.state not in _RESTS:
                yield f"{purchase.external_id}: ended as {purchase.state}"
        # A shop that pays a part back before the order is begun has the rest to explain.
        is_begun = found.purchases or found.cancel_time or order_id in self.world.own_refunds
        if not is_begun and found.state is State.AWAITING_PAYMENT:
            yield f"{order_id}: paid and never begun"

    def delivered(self, line: Line, purchase: Purchase) -> Iterator[str]:
        """Promise 2: what was bought reached its owner, or a human with a reason, or went back."""
        name, keys = purchase.external_id, line.keys_of(purchase.external_id)
        sold = self._own(purchase)
        if purchase.state in {State.READY, State.DELIVERED}:
            yield from self._there(purchase, keys, is_sold=bool(sold))
        elif purchase.state in _GONE and sold:
            yield from self._went_back(purchase, sold[0], keys)
        elif purchase.state is State.SUPERSEDED and sold:
            yield f"{name}: superseded, but bought"
        elif purchase.state is State.PARTLY_CANCELED and not any(_is_there(key) for key in keys):
            yield f"{name}: a part is canceled, and nothing is there"
        elif purchase.state is State.NEEDS_ATTENTION and not purchase.reason:
            yield f"{name}: needs attention for no reason"
        elif purchase.reason is Reason.KEY_UNREADABLE and sold:
            yield from self._readable(purchase, sold[0], keys)
        if purchase.state in {State.READY, State.DELIVERED, State.PARTLY_CANCELED} and sold:
            yield from self._arrived(purchase, sold[0], keys)

    def _there(self, purchase: Purchase, keys: Sequence[Key], *, is_sold: bool) -> Iterator[str]:
        name, there = purchase.external_id, sum(_is_there(key) for key in keys)
        if there < purchase.quantity:
            yield f"{name}: {purchase.state} with {there} keys of {purchase.quantity}"
        openable = [key for key in keys if key.is_openable and key.replace_time is None]
        if purchase.state is State.READY and keys and all(key.open_time for key in openable):
            yield f"{name}: every key was opened, and it is not delivered"
        if purchase.state is State.DELIVERED and any(key.open_time is None for key in openable):
            yield f"{name}: delivered before every key was opened"
        if is_sold and not purchase.supplier_order_id:
            yield f"{name}: delivered by a person, and bought as well"

    def _arrived(self, purchase: Purchase, sold: Sold, own: Sequence[Key]) -> Iterator[str]:
        by_hand = any(self.store[key.key_id].source_ref.startswith("manual:") for key in own)
        if purchase.give_up or by_hand or (purchase.order_id, purchase.item_id) in self.world.given_up:
            return  # Somebody has let the rest go, or delivered it: the supplier takes back all or nothing.
        known, number = {key.key_id for key in own}, sold.order.supplier_order_id
        for n, time in enumerate(sold.times):
            if time > self.world.loop.time() or (sold.unreadable and n == 0):
                continue
            sealed = self.world.store.by_source.get(f"kinguin:{number}:{number}-{n}")
            if sealed is None or sealed.key_id not in known:
                yield f"{purchase.external_id}: key {n} was delivered and lost"

    def _readable(self, purchase: Purchase, sold: Sold, own: Sequence[Key]) -> Iterator[str]:
        """What can be opened is there by the time that a person is asked to mend what cannot."""
        known = {key.key_id for key in own if key.ready_time <= purchase.state_time}
        number = sold.order.supplier_order_id
        placed = (purchase.place_time or purchase.state_time) - EPOCH
        for n, time in enumerate(sold.times):
            sealed = self.world.store.by_source.get(f"kinguin:{number}:{number}-{n}")
            is_readable = not (sold.unreadable and n == 0)
            if is_readable and time <= placed.total_seconds() and (sealed is None or sealed.key_id not in known):
                yield f"{purchase.external_id}: key {n} was delivered and lost beside one that cannot be read"

    def _went_back(self, purchase: Purchase, sold: Sold, own: Sequence[Key]) -> Iterator[str]:
        delivered = any(time <= self.world.loop.time() for time in sold.times)
        accepted = purchase.reason in {Reason.RETURN_REFUSED, Reason.RETURN_TOO_LATE} or self._was_accepted(purchase)
        if delivered and sold.return_time is None and not accepted:
            yield f"{purchase.external_id}: {purchase.state}, and its keys are neither here nor with the supplier"
        if any(key.is_openable and key.replace_time is None for key in own):
            yield f"{purchase.external_id}: {purchase.state}, and its keys can be opened"
        if sold.return_time is None or accepted:
            return
        # What was sealed before it went back is revoked before all is over, whoever was told of it.
        end = (purchase.state_time - EPOCH).total_seconds()
        for sealed in self.store.values():
            is_its = sealed.source_ref.startswith(f"kinguin:{sold.order.supplier_order_id}:")
            if is_its and sealed.seal_time < sold.return_time and not 0.0 < (sealed.revoke_time or 0.0) <= end:
                yield f"{sealed.key_id}: sealed, and not revoked when its purchase was over"

    def _was_accepted(self, purchase: Purchase) -> bool:
        """Tell whether staff decided to keep what the supplier does not take back."""
        return (purchase.order_id, purchase.item_id) in self.world.given_up

    def vault(self) -> Iterator[str]:
        """Nobody opens what was revoked, and what went back can be opened by nobody."""
        known = {key.key_id: key for found in self.orders for line in found.lines for key in line.keys}
        for sealed in self.store.values():
            if sealed.revoked and "opened" in sealed.history[sealed.history.index("revoked") :]:
                yield f"{sealed.key_id}: opened after it was revoked"
            if sealed.key_id in known:
                yield from self._noted(sealed, known[sealed.key_id])
            elif sealed.is_openable and sealed.source_ref.startswith("kinguin:"):
                yield f"{sealed.key_id}: sealed, and nobody was ever told"
            yield from self._gone(sealed, known.get(sealed.key_id))

    @staticmethod
    def _noted(sealed: SealedKey, key: Key) -> Iterator[str]:
        """What fulfillment has noted of a key is what vault did."""
        if key.revoke_time is not None and sealed.is_openable:
            yield f"{sealed.key_id}: noted as revoked, and can be opened"
        if sealed.opened and key.open_time is None:
            yield f"{sealed.key_id}: opened, and nobody noted it"
        if key.open_time is not None and not sealed.opened:
            yield f"{sealed.key_id}: noted as opened, and never was"
        if key.is_openable and not sealed.is_openable:
            yield f"{sealed.key_id}: shown to its owner, and cannot be opened"

    def _gone(self, sealed: SealedKey, key: Key | None) -> Iterator[str]:
        """What the supplier has back its owner never had, and it is destroyed only then."""
        if not sealed.source_ref.startswith("kinguin:"):
            return
        sold = self.world.account.find(sealed.source_ref.split(":")[1])
        back = None if sold is None else sold.return_time
        if back is not None and self._is_usable(sealed, key):
            yield f"{sealed.key_id}: went back, and can be opened or was"
        if sealed.shredded and (back is None or back > self.world.loop.time()):
            yield f"{sealed.key_id}: destroyed, and never given back"

    @staticmethod
    def _is_usable(sealed: SealedKey, key: Key | None) -> bool:
        """Tell whether its owner has a key: opened it, or may."""
        return sealed.opened or (sealed.is_openable and key is not None and key.is_openable)

    def key_or_money(self, found: Fulfillment, line: Line) -> Iterator[str]:
        """A customer has the key or the money, and never both, unless the shop gave money back by itself."""
        requests = [
            each
            for each in self.world.orders.tables.table("requests").values()
            if each.order_id == found.order.order_id and each.item_id in {line.item.item_id, None}
        ]
        asked = sum(each.quantity if each.item_id else line.item.quantity for each in requests[:1] if not each.item_id)
        asked += sum(each.quantity for each in requests if each.item_id)
        keys = [key for key in line.keys if key.replace_time is None]
        usable = sum(self._is_usable(self.store[key.key_id], key) for key in keys)
        if usable + asked > line.item.quantity:
            yield f"{line.item.item_id}: {usable} keys and money for {asked} of {line.item.quantity}"
        is_settled = bool(line.purchases) and all(each.state is not State.NEEDS_ATTENTION for each in line.purchases)
        is_free = found.order.order_id in self.world.own_refunds or found.state is State.NEEDS_ATTENTION
        if is_settled and not is_free and usable + asked < line.item.quantity:
            yield f"{line.item.item_id}: {usable} keys and money for {asked} of {line.item.quantity} only"
        if sum(each.amount.minor_units for each in requests) > found.order.total.minor_units and line.purchases:
            yield f"{found.order.order_id}: more money is asked back than was due"

    def told_of(self, found: Fulfillment) -> Iterator[str]:
        """The shop was told everything once, and nothing that is not so."""
        order_id = found.order.order_id
        told: dict[str, list[Any]] = {
            subject.removeprefix("fulfillment."): [each.message for each in events if each.about == order_id]
            for subject, events in self.told.items()
        }
        for payment in self.world.shop.paid.get(order_id, ()):
            if payment.payment_id not in {each.payment_id for each in told.get("accepted", ())}:
                yield f"{payment.payment_id}: was never accepted"
        yield from self._told_of_purchases(found, told)
        # Of a share that is nothing, for all was paid back already, nobody is told.
        requests = {
            each.request_id
            for each in self.world.orders.tables.table("requests").values()
            if each.order_id == order_id and each.amount.minor_units
        }
        if requests != {each.refund_request_id for each in told.get("refund_requested", ())}:
            yield f"{order_id}: the shop was not asked for what is due"
        for subject, state in (("ready", State.READY), ("delivered", State.DELIVERED)):
            if found.state is state and not told.get(subject):
                yield f"{order_id}: {subject}, and nobody was told"
        if found.state is State.NEEDS_ATTENTION:
            reasons = {each.reason for each in told.get("needs_attention", ())}
            if found.reason not in reasons:
                yield f"{order_id}: needs attention for {found.reason}, and nobody was told"

    def _told_of_purchases(self, found: Fulfillment, told: dict[str, list[Any]]) -> Iterator[str]:
        purchased = Counter(each.external_id for each in told.get("purchased", ()))
        bought = {each.external_id for each in found.purchases if each.supplier_order_id}
        if set(purchased) != bought:
            yield f"{found.order.order_id}: told of purchases {sorted(purchased)}, there are {sorted(bought)}"
        ready = {each.key_id for each in told.get("key_ready", ())}
        for line in found.lines:
            for key in line.keys:
                if key.is_openable and key.key_id not in ready:
                    yield f"{key.key_id}: can be opened, and nobody was told"
        canceled = Counter[str]()
        for each in told.get("canceled", ()):
            canceled[each.item_id] += each.quantity
        expected = Counter[str]()
        for purchase in found.purchases:
            expected[purchase.item_id] += purchase.canceled_quantity
        if found.purchases and +canceled != +expected:
            yield f"{found.order.order_id}: told that {canceled} were canceled, {expected} were"

    def mailed(self, found: Fulfillment) -> Iterator[str]:
        """One mail for each order of which a key could be opened; a copy only where an answer was lost."""
        order_id = found.order.order_id
        name = f"<{order_id}>"
        taken, row = self.world.mails[name], self.world.orders.tables.table("mails").get(order_id)
        copies = self.world.lost_answers[name]
        if taken > 1 + copies:
            yield f"{order_id}: {taken} mails, {copies} answers were lost"
        could = any(key.is_openable or key.open_time for line in found.lines for key in line.keys)
        if could and not taken and name not in self.world.refused_mails:
            yield f"{order_id}: no mail"
        if taken and row is None:
            yield f"{order_id}: a mail about nothing"


def _is_there(key: Key) -> bool:
    return key.is_openable or key.replace_time is not None
