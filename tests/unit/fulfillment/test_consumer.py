import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from chassis.errors import InvalidRequest
from chassis.events import Event
from fulfillment.consumer import EventHandlers
from fulfillment.domain.model import ExternalId, OrderId, State
from fulfillment.ports.supplier import Paused
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentAccepted, FulfillmentRefunded
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged, KinguinPurchaseReleased
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed, PaymentRefunded
from keyferry.events.v1.vault_events_pb2 import (
    ACCESS_NEWS_COUNTRY,
    ACCESS_NEWS_DEVICE,
    ACCESS_NEWS_UNSPECIFIED,
    AccessNews,
    VaultKeyOpened,
    VaultKeyUnusualAccess,
)
from keyferry.fulfillment.v1 import fulfillment_pb2 as pb
from keyferry.type.v1 import money_pb2

from tests.unit.fulfillment.examples import NOON
from tests.unit.fulfillment.fakes import key_ids
from tests.unit.fulfillment.memory_notices import MemoryNotices
from tests.unit.fulfillment.office import Office

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

NO_CONNECTION = cast("AsyncConnection", None)
ORDER = pb.Order(
    order_id="order-1",
    customer=pb.Customer(customer_id="alice", email="alice@example.com"),
    total=money_pb2.Money(currency_code="EUR", minor_units=1000),
    items=[
        pb.Item(
            item_id="item-1",
            product_id="product-1",
            quantity=1,
            max_unit_price=money_pb2.Money(currency_code="EUR", minor_units=999),
        )
    ],
)
PAYMENT = pb.Payment(
    payment_id="payment-1",
    order_id="order-1",
    provider="stripe",
    amount=money_pb2.Money(currency_code="EUR", minor_units=1000),
    confirm_time=Timestamp(seconds=1),
)


class Streams(Office):
    """Handlers over orders in memory, each event in a transaction of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.notices = MemoryNotices({"key-1": "order-1"})

    async def tell(self, body: Message, *, time: datetime | None = None) -> None:
        event = Event.of(
            body,
            event_id=str(uuid.uuid4()),
            subject="a.b",
            source="shop",
            about="order-1",
            time=time or self.clock.now(),
        )
        async with self.orders.transaction() as transaction:
            handlers = EventHandlers(
                lambda _connection: transaction,
                self.intake,
                self.openings,
                clock=self.clock,
                noticing_within=lambda _connection: self.notices,
            )
            known = {**handlers.payments(), **handlers.supplier(), **handlers.vault()}
            await known[event.type_name].function(event, body, NO_CONNECTION)


@pytest.fixture
def streams() -> Streams:
    return Streams()


async def test_one_event_does_everything(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    assert [purchase.state for purchase in streams.orders.purchases()] == [State.PENDING]
    assert len(streams.orders.told(FulfillmentAccepted)) == 1


async def test_a_payment_alone_waits_for_its_order(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT))
    assert not streams.orders.purchases()
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    assert len(streams.orders.purchases()) == 1


async def test_faults_of_both_parts_are_told_at_once_and_nothing_is_stored(streams: Streams) -> None:
    order = pb.Order()
    order.CopyFrom(ORDER)
    order.items[0].quantity, order.order_id = 0, "order-2"
    payment = pb.Payment()
    payment.CopyFrom(PAYMENT)
    payment.provider = ""
    before = streams.orders.rows
    with pytest.raises(InvalidRequest) as raised:
        await streams.tell(PaymentConfirmed(payment=payment, order=order))
    assert [violation.field for violation in raised.value.field_violations] == [
        "payment.provider",
        "order.items[0].quantity",
        "payment.order_id",
    ]
    assert streams.orders.rows is before


async def test_a_change_at_the_supplier_makes_a_purchase_due(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    (external_id,) = streams.orders.rows.purchases
    later = NOON.replace(hour=23)
    streams.orders.rows.purchases[external_id] = replace(streams.orders.rows.purchases[external_id], run_at=later)
    await streams.tell(KinguinOrderChanged(external_id=external_id))
    await streams.tell(KinguinOrderChanged(external_id=ExternalId("kf1-of-nobody")))
    assert streams.orders.rows.purchases[external_id].run_at == NOON


def another(order_id: str) -> PaymentConfirmed:
    message = PaymentConfirmed(payment=PAYMENT, order=ORDER)
    message.order.order_id = message.payment.order_id = order_id
    message.payment.payment_id = f"payment-of-{order_id}"
    return message


async def test_released_purchases_are_bought_in_the_order_of_their_events_however_these_come(streams: Streams) -> None:
    order_ids = [f"order-{number}" for number in range(4)]
    streams.supplier.placing = [Paused(timedelta(hours=1))] * len(order_ids)
    for order_id in order_ids:
        await streams.tell(another(order_id))
    await streams.work()
    streams.clock.pass_seconds(60)
    parked = {purchase.order_id: purchase.external_id for purchase in streams.orders.purchases()}
    turns = [order_ids[2], order_ids[0], order_ids[3], order_ids[1]]
    told = [(turn, NOON + timedelta(seconds=40 + number)) for number, turn in enumerate(turns)]
    for turn, time in told[::-1]:
        await streams.tell(KinguinPurchaseReleased(external_id=parked[OrderId(turn)], order_id=turn), time=time)
    streams.supplier.buyings.clear()
    await streams.work()
    assert [buying.purchase.order_id for buying in streams.supplier.buyings] == turns


async def test_a_release_told_by_a_clock_that_is_ahead_is_due_now(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    streams.supplier.placing = [Paused(timedelta(hours=1))]
    await streams.work()
    (external_id,) = streams.orders.rows.purchases
    await streams.tell(KinguinPurchaseReleased(external_id=external_id), time=NOON + timedelta(minutes=5))
    await streams.tell(KinguinPurchaseReleased(external_id="kf1-of-nobody"))
    assert streams.orders.rows.purchases[external_id].run_at == NOON


async def test_an_opened_key_delivers_its_order(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    for _ in range(2):
        await streams.work()
    (purchase,) = streams.orders.purchases()
    for key_id in key_ids(purchase):
        await streams.tell(VaultKeyOpened(key_id=key_id))
    assert [purchase.state for purchase in streams.orders.purchases()] == [State.DELIVERED]


REFUND = pb.Refund(
    refund_id="refund-1",
    payment_id="payment-1",
    provider="stripe",
    amount=money_pb2.Money(currency_code="EUR", minor_units=1000),
    refund_time=Timestamp(seconds=2),
)


async def test_a_refund_takes_back_what_its_payment_bought(streams: Streams) -> None:
    await streams.tell(PaymentRefunded(refund=REFUND))
    assert not streams.orders.told(FulfillmentRefunded)
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    assert len(streams.orders.told(FulfillmentRefunded)) == 1
    assert (await streams.found()).state is State.REFUNDED


async def test_a_refund_told_again_is_answered_again(streams: Streams) -> None:
    await streams.tell(PaymentConfirmed(payment=PAYMENT, order=ORDER))
    for _ in range(2):
        await streams.tell(PaymentRefunded(refund=REFUND))
    assert len(streams.orders.told(FulfillmentRefunded)) == 2


async def test_every_fault_of_a_refund_is_told_at_once_and_nothing_is_stored(streams: Streams) -> None:
    before = streams.orders.rows
    with pytest.raises(InvalidRequest) as raised:
        await streams.tell(PaymentRefunded(refund=pb.Refund(item_ids=["a/b"], refund_request_ids=[""])))
    assert [fault.field for fault in raised.value.field_violations] == [
        "refund.refund_id",
        "refund.payment_id",
        "refund.provider",
        "refund.refund_time",
        "refund.item_ids[0]",
        "refund.refund_request_ids[0]",
        "refund.amount.currency_code",
        "refund.amount.minor_units",
    ]
    assert streams.orders.rows is before


def an_access(*news: AccessNews.ValueType) -> VaultKeyUnusualAccess:
    return VaultKeyUnusualAccess(key_id="key-1", order_id="order-1", access_time=Timestamp(seconds=7), news=news)


async def test_an_unusual_access_lets_its_owner_be_told(streams: Streams) -> None:
    await streams.tell(an_access(ACCESS_NEWS_COUNTRY, ACCESS_NEWS_DEVICE))
    (row,) = streams.notices.rows.values()
    assert row.access.time.timestamp() == 7
    assert [each.value for each in row.access.news] == ["COUNTRY", "DEVICE"]


async def test_news_that_this_release_does_not_know_is_not_told(streams: Streams) -> None:
    await streams.tell(an_access(ACCESS_NEWS_UNSPECIFIED))
    assert not streams.notices.rows
    await streams.tell(an_access(ACCESS_NEWS_UNSPECIFIED, ACCESS_NEWS_DEVICE))
    assert len(streams.notices.rows) == 1
