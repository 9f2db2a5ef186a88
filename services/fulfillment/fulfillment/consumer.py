"""The events that fulfillment takes: what the shop, the supplier's side and vault tell."""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

from chassis.clock import Clock
from chassis.consumer import Handler
from chassis.events import Event
from chassis.validation import Faults
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged, KinguinPurchaseReleased
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed, PaymentRefunded
from keyferry.events.v1.vault_events_pb2 import (
    ACCESS_NEWS_COUNTRY,
    ACCESS_NEWS_DEVICE,
    ACCESS_NEWS_NETWORK,
    VaultKeyCorrupted,
    VaultKeyOpened,
    VaultKeyUnusualAccess,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.collecting import Openings
from fulfillment.convert import order_digest, order_from_proto, payment_from_proto, refund_from_proto
from fulfillment.domain.model import ExternalId, KeyId, OrderId
from fulfillment.intake import Intake
from fulfillment.noticing import take_access
from fulfillment.ports.notices import Access, News, NoticeTransaction
from fulfillment.ports.orders import OrderTransaction

Within = Callable[[AsyncConnection], OrderTransaction]
NoticingWithin = Callable[[AsyncConnection], NoticeTransaction]

_NEWS = {
    ACCESS_NEWS_COUNTRY: News.COUNTRY,
    ACCESS_NEWS_NETWORK: News.NETWORK,
    ACCESS_NEWS_DEVICE: News.DEVICE,
}


class EventHandlers:
    """Handlers, each within the transaction that also writes the inbox."""

    def __init__(
        self,
        within: Within,
        intake: Intake,
        openings: Openings,
        *,
        clock: Clock,
        noticing_within: NoticingWithin,
    ) -> None:
        self._within = within
        self._intake = intake
        self._openings = openings
        self._clock = clock
        self._noticing_within = noticing_within

    def payments(self) -> Mapping[str, Handler[Any]]:
        """Return the handlers of the stream PAYMENTS."""
        return {
            PaymentConfirmed.DESCRIPTOR.full_name: Handler(PaymentConfirmed, self._payment_confirmed),
            PaymentRefunded.DESCRIPTOR.full_name: Handler(PaymentRefunded, self._payment_refunded),
        }

    def supplier(self) -> Mapping[str, Handler[Any]]:
        """Return the handlers of the stream KINGUIN."""
        return {
            KinguinOrderChanged.DESCRIPTOR.full_name: Handler(KinguinOrderChanged, self._order_changed),
            KinguinPurchaseReleased.DESCRIPTOR.full_name: Handler(KinguinPurchaseReleased, self._purchase_released),
        }

    def vault(self) -> Mapping[str, Handler[Any]]:
        """Return the handlers of the stream VAULT."""
        return {
            VaultKeyOpened.DESCRIPTOR.full_name: Handler(VaultKeyOpened, self._key_opened),
            VaultKeyCorrupted.DESCRIPTOR.full_name: Handler(VaultKeyCorrupted, self._key_corrupted),
            VaultKeyUnusualAccess.DESCRIPTOR.full_name: Handler(VaultKeyUnusualAccess, self._unusual_access),
        }

    async def _payment_confirmed(self, event: Event, body: PaymentConfirmed, connection: AsyncConnection) -> None:
        faults = Faults()
        payment = payment_from_proto(body.payment, faults)
        order = order_from_proto(body.order, faults) if body.HasField("order") else None
        if order is not None and order.order_id != payment.order_id:
            faults.add("payment.order_id", "must be the order's")
        faults.raise_if_any()
        transaction = self._within(connection)
        if order is not None:
            await self._intake.take_order(transaction, order, order_digest(body.order))
        await self._intake.take_payment(transaction, payment, telling=event.event_id)

    async def _payment_refunded(self, event: Event, body: PaymentRefunded, connection: AsyncConnection) -> None:
        faults = Faults()
        refund = refund_from_proto(body.refund, faults)
        faults.raise_if_any()
        await self._intake.take_refund(self._within(connection), refund, telling=event.event_id)

    async def _order_changed(self, _event: Event, body: KinguinOrderChanged, connection: AsyncConnection) -> None:
        await self._within(connection).hasten(ExternalId(body.external_id), now=self._clock.now())

    async def _purchase_released(
        self, event: Event, body: KinguinPurchaseReleased, connection: AsyncConnection
    ) -> None:
        # Due since it was told: what was told together is handled in any order, and bought in the order of the telling.
        due = min(event.time, self._clock.now())
        await self._within(connection).hasten(ExternalId(body.external_id), now=due)

    async def _key_opened(self, _event: Event, body: VaultKeyOpened, connection: AsyncConnection) -> None:
        await self._openings.key_opened(self._within(connection), KeyId(body.key_id))

    async def _key_corrupted(self, _event: Event, body: VaultKeyCorrupted, connection: AsyncConnection) -> None:
        await self._openings.key_corrupted(self._within(connection), KeyId(body.key_id))

    async def _unusual_access(self, event: Event, body: VaultKeyUnusualAccess, connection: AsyncConnection) -> None:
        time = body.access_time.ToDatetime(UTC) if body.HasField("access_time") else event.time
        # What this release has no words for is not told; vault may be newer.
        news = [_NEWS[each] for each in body.news if each in _NEWS]
        if news:
            access = Access(KeyId(body.key_id), OrderId(body.order_id), time, news)
            await take_access(self._noticing_within(connection), access, clock=self._clock)
