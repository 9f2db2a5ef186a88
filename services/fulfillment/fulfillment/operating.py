"""What support staff and customers may ask of an order: to go on, to give up, to have a key replaced or delivered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.failpoints import effect
from keyferry.type.v1 import actor_pb2

from fulfillment import facts
from fulfillment.arriving import tell_keys
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import (
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Line,
    OrderId,
    Purchase,
    State,
)
from fulfillment.domain.planner import replacement_id
from fulfillment.domain.policy import (
    EVERYTHING,
    Trouble,
    is_all_opened,
    is_deliverable,
    is_replaceable,
    is_stranded,
    signal_on_completion,
    signal_on_retry,
)
from fulfillment.errors import (
    KeyNotFound,
    KeyNotNeeded,
    KeyReplaced,
    MailLimit,
    MailNotDue,
    NothingToRetry,
    OrderNotFound,
    PurchaseNotFound,
    PurchaseNotSettled,
)
from fulfillment.giving_up import GivingUp
from fulfillment.moving import Mover, loaded, summarize
from fulfillment.ports.orders import Orders, OrderTransaction
from fulfillment.ports.supplier import Buying, InDoubt, NoAnswer, Placed, Refused, Supplier
from fulfillment.ports.vault import NoWord, RevokeAnswer, Revoked, Upload, Vault

# A customer who does not find a mail after this many has another problem than the mail.
MOST_MAILS = 5
MAIL_WINDOW = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for something, and why."""

    actor: actor_pb2.Actor
    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A key that a person uploaded for a purchase, encrypted for vault."""

    request_id: str
    order_id: OrderId
    external_id: ExternalId
    content_type: str
    key_jwe: str = field(repr=False)


class Operating:
    """Serves people. What is changed here is written with who asked and why; the work itself is done by claims."""

    def __init__(
        self, orders: Orders, mover: Mover, giving_up: GivingUp, supplier: Supplier, vault: Vault, *, clock: Clock
    ) -> None:
        self._orders = orders
        self._mover = mover
        self._giving_up = giving_up
        self._supplier = supplier
        self._vault = vault
        self._clock = clock

    async def cancel(
        self, transaction: OrderTransaction, order_id: OrderId, item_ids: Collection[ItemId], asked: Asked
    ) -> Fulfillment:
        """Give up what an order still waits for. Raises OrderNotFound and NothingToCancel."""
        now = self._clock.now()
        found, by_staff = await _found(transaction, order_id), asked.actor.type == actor_pb2.ACTOR_TYPE_ADMIN
        after = await self._giving_up.cancel(transaction, found, item_ids, by_staff=by_staff, now=now)
        await _record(
            transaction, "order.cancel_asked", order_id, asked, now, details={"items": ",".join(sorted(item_ids))}
        )
        return after

    async def retry(
        self,
        transaction: OrderTransaction,
        order_id: OrderId,
        item_id: ItemId | None,
        asked: Asked,
        *,
        trouble: Trouble = EVERYTHING,
        delay: timedelta = timedelta(0),
    ) -> Fulfillment:
        """Let what needs attention go on, after `delay`. Raises OrderNotFound and NothingToRetry without writing."""
        now = self._clock.now()
        found = await _found(transaction, order_id)
        lines = [line for line in found.lines if item_id in {None, line.item.item_id}]
        retried = 0
        for line in lines:
            for purchase in filter(trouble.includes, line.purchases):
                keys = line.keys_of(purchase.external_id)
                retried += await self._retry(transaction, purchase, keys, now=now, delay=delay)
        if not retried:
            raise NothingToRetry("nothing of the order needs attention that trying again could mend")
        details = {"item_id": item_id or "", "purchases": str(retried)}
        await _record(transaction, "order.retry_asked", order_id, asked, now, details=details)
        return await summarize(transaction, order_id, now=now)

    async def _retry(
        self, transaction: OrderTransaction, purchase: Purchase, keys: Sequence[Key], *, now: datetime, delay: timedelta
    ) -> bool:
        if is_stranded(purchase):
            await self._mover.wake(transaction, purchase, keys, now=now, delay=delay)
            return True
        signal = signal_on_retry(purchase, keys)
        if signal is None:
            return False
        moved = await self._mover.move(transaction, purchase, signal, now=now, delay=delay)
        await self._deliver_opened(transaction, moved, now)
        return True

    async def resend_mail(self, transaction: OrderTransaction, order_id: OrderId, asked: Asked) -> None:
        """Let the order's mail be sent again. Raises OrderNotFound, MailNotDue and MailLimit."""
        now = self._clock.now()
        found = await _found(transaction, order_id)
        if not found.order.customer.email:
            raise MailNotDue("the order's customer was forgotten: there is nobody to write to")
        try:
            again = await transaction.want_mail_again(order_id, now=now, most=MOST_MAILS, within=MAIL_WINDOW)
        except LookupError:
            raise MailNotDue("no key of the order could be opened yet: there is no mail to send again") from None
        if again is not None:
            raise MailLimit(f"the mail was sent again {MOST_MAILS} times already", retry_after=again - now)
        await _record(transaction, "mail.resend_asked", order_id, asked, now)

    async def revoke_for_replacement(self, order_id: OrderId, key_id: KeyId) -> RevokeAnswer:
        """Make sure, before another key is bought, that this one is of no use to anybody who has not seen it.

        Raises OrderNotFound, KeyNotFound and KeyReplaced. Dies after it: the request is repeated, and finds it revoked.
        """
        async with self._orders.transaction() as transaction:
            line, key = _key_of(await _found(transaction, order_id), key_id)
        if not is_replaceable(_origin(line, key), key, line.keys_of(key.external_id)):
            raise KeyReplaced("another key was bought in place of this one, or it was taken back")
        answer = await effect(
            "fulfillment.replace.call", lambda: self._vault.revoke_keys(order_id, [key_id], why="replaced")
        )
        if isinstance(answer, NoWord):
            raise ServiceUnavailable("vault does not say whether the key was opened; nothing was changed")
        return answer

    async def replace_key(
        self, transaction: OrderTransaction, order_id: OrderId, key_id: KeyId, answer: RevokeAnswer, asked: Asked
    ) -> Fulfillment:
        """Have another key bought in place of this one. Raises OrderNotFound, KeyNotFound and KeyReplaced."""
        now = self._clock.now()
        line, key = _key_of(await _found(transaction, order_id), key_id)
        may_be = is_replaceable(_origin(line, key), key, line.keys_of(key.external_id))
        if not may_be or not await transaction.replace_key(key_id, now=now):
            raise KeyReplaced("another key was bought in place of this one, or it was taken back")
        if isinstance(answer, Revoked):
            await transaction.revoke_keys([key_id], now=now)
        successor = Purchase(
            external_id=replacement_id(order_id, key.item_id, key_id, 1),
            order_id=order_id,
            item_id=key.item_id,
            quantity=1,
            state=State.PENDING,
            state_time=now,
            chunk=max(each.chunk for each in line.purchases) + 1,
            replaced_key_id=key_id,
        )
        await transaction.add_purchases([successor], run_at=now)
        await self._complete(transaction, order_id, key.external_id, now)
        details = {"opened": str(not isinstance(answer, Revoked)).lower(), "external_id": successor.external_id}
        await _record(transaction, "key.replacement_asked", order_id, asked, now, details=details, key_id=key_id)
        return await summarize(transaction, order_id, now=now)

    async def seal(self, delivery: Delivery) -> Key:
        """Settle the purchase of an uploaded key, so that it cannot also be bought, and have the key sealed.

        Raises OrderNotFound, PurchaseNotFound, PurchaseNotSettled and what vault raises for what is no key. Dies after
        it: the request is repeated, and vault gives the same key.
        """
        async with self._orders.transaction() as transaction:
            found = await _found(transaction, delivery.order_id)
        line, purchase = _purchase_of(found, delivery.external_id)
        await self._settle(found, line, purchase)
        upload = Upload(
            request_id=delivery.request_id,
            source_ref=f"manual:{delivery.external_id}:{delivery.request_id}",
            order_id=delivery.order_id,
            item_id=purchase.item_id,
            customer_id=found.order.customer.customer_id,
            content_type=delivery.content_type,
            key_jwe=delivery.key_jwe,
        )
        sealed = await effect("fulfillment.deliver.call", lambda: self._vault.seal_upload(upload))
        now = self._clock.now()
        return Key(sealed.key_id, purchase.item_id, delivery.external_id, delivery.content_type, sealed.held, now)

    async def _settle(self, found: Fulfillment, line: Line, purchase: Purchase) -> None:
        if not is_deliverable(purchase, line.keys_of(purchase.external_id)):
            raise PurchaseNotSettled("the purchase does not need a key from a person", metadata=_told(purchase))
        if purchase.supplier_order_id:
            return
        buying = Buying(purchase, line.item, found.order.customer.customer_id, found.order.customer.country_code)
        match await effect("fulfillment.settle.call", lambda: self._supplier.withdraw(buying)):
            case Refused():
                return
            case Placed():
                raise PurchaseNotSettled("the purchase was made after all: let it go on", metadata=_told(purchase))
            case InDoubt(ask_after):
                raise PurchaseNotSettled(
                    "whether the purchase was made is not known yet", metadata=_told(purchase), retry_after=ask_after
                )
            case NoAnswer():
                raise ServiceUnavailable("kinguin-gateway does not say whether the purchase was made")

    async def deliver(self, transaction: OrderTransaction, order_id: OrderId, key: Key, asked: Asked) -> Fulfillment:
        """Deliver a key that was sealed for a purchase. Raises KeyNotNeeded where none is missing by now."""
        now = self._clock.now()
        line, purchase = _purchase_of(await _found(transaction, order_id), key.external_id)
        keys = line.keys_of(key.external_id)
        if key.key_id not in {known.key_id for known in keys}:
            if not is_deliverable(purchase, keys):
                raise KeyNotNeeded("the purchase needs no key from a person any more; what was uploaded was destroyed")
            fresh = await transaction.add_keys(order_id, [key])
            await tell_keys(transaction, purchase, fresh, now=now)
            details = {"external_id": key.external_id, "held": str(key.held).lower()}
            await _record(
                transaction, "key.delivered_manually", order_id, asked, now, details=details, key_id=key.key_id
            )
            await self._complete(transaction, order_id, key.external_id, now)
        return await summarize(transaction, order_id, now=now)

    async def destroy(self, order_id: OrderId, key_id: KeyId) -> None:
        """Destroy an uploaded key that nobody needs. What is left of it reconciliation names."""
        answer = await effect(
            "fulfillment.destroy.revoke", lambda: self._vault.revoke_keys(order_id, [key_id], why="not needed")
        )
        if isinstance(answer, Revoked):
            await effect("fulfillment.destroy.shred", lambda: self._vault.shred_key(order_id, key_id, why="not needed"))

    async def _complete(
        self, transaction: OrderTransaction, order_id: OrderId, external_id: ExternalId, now: datetime
    ) -> None:
        """Let a purchase whose last missing key is there, or is bought elsewhere, go on."""
        line, purchase = _purchase_of(await loaded(transaction, order_id), external_id)
        signal = signal_on_completion(purchase, line.keys_of(external_id))
        if signal is not None:
            purchase = await self._mover.move(transaction, purchase, signal, now=now)
        await self._deliver_opened(transaction, purchase, now)

    async def _deliver_opened(self, transaction: OrderTransaction, purchase: Purchase, now: datetime) -> None:
        """Let a purchase that is ready again be delivered where its owner has opened every key before."""
        line, purchase = _purchase_of(await loaded(transaction, purchase.order_id), purchase.external_id)
        if purchase.state is State.READY and is_all_opened(line.keys_of(purchase.external_id)):
            await self._mover.move(transaction, purchase, Signal.ALL_KEYS_OPENED, now=now)


async def _found(transaction: OrderTransaction, order_id: OrderId) -> Fulfillment:
    found = await transaction.load(order_id, lock=True)
    if found is None:
        raise OrderNotFound("there is no such order")
    return found


def _key_of(found: Fulfillment, key_id: KeyId) -> tuple[Line, Key]:
    for line in found.lines:
        for key in line.keys:
            if key.key_id == key_id:
                return line, key
    raise KeyNotFound("the order has no such key")


def _origin(line: Line, key: Key) -> Purchase:
    return next(purchase for purchase in line.purchases if purchase.external_id == key.external_id)


def _purchase_of(found: Fulfillment, external_id: ExternalId) -> tuple[Line, Purchase]:
    for line in found.lines:
        for purchase in line.purchases:
            if purchase.external_id == external_id:
                return line, purchase
    raise PurchaseNotFound("the order has no such purchase")


def _told(purchase: Purchase) -> dict[str, str]:
    return {"state": purchase.state.value, "reason": purchase.reason.value}


async def _record(
    transaction: OrderTransaction,
    action: str,
    order_id: OrderId,
    asked: Asked,
    now: datetime,
    *,
    details: dict[str, str] | None = None,
    key_id: str = "",
) -> None:
    told = {**{name: value for name, value in (details or {}).items() if value}, "reason": asked.reason}
    identity = [key_id, now.isoformat()]
    await facts.record(
        transaction, action, order_id, now=now, identity=identity, actor=asked.actor, details=told, key_id=key_id
    )
