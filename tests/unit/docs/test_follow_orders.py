"""A shop's tables and what it makes of each message, without a socket."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.message import DecodeError, Message
from keyferry.events.v1 import fulfillment_events_pb2 as told
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1.fulfillment_pb2 import Order, Payment
from keyferry.type.v1.money_pb2 import Money

from docs.examples.follow_orders import following
from docs.examples.follow_orders.following import pay_back_once, take
from docs.examples.follow_orders.orders import BATCH, Orders

if TYPE_CHECKING:
    from nats.aio.msg import Msg

ORDER_ID = "S-1"
AMOUNT = Money(currency_code="EUR", minor_units=700)
REQUEST = told.FulfillmentRefundRequested(
    order_id=ORDER_ID,
    refund_request_id="request-1",
    lines=[told.RefundLine(item_id="1", quantity=1, amount=AMOUNT)],
    amount=AMOUNT,
)
NOW = 1_800_000_000.25


def paid(order_id: str = ORDER_ID) -> PaymentConfirmed:
    payment = Payment(payment_id=f"pay-{order_id}", order_id=order_id, provider="stripe")
    return PaymentConfirmed(payment=payment, order=Order(order_id=order_id))


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    tables = Orders(tmp_path / "shop.sqlite3")
    tables.add(paid())
    yield tables
    tables.close()


def hear(orders: Orders, message: Message, event_id: str = "") -> bool:
    name = message.DESCRIPTOR.full_name
    return orders.handle(event_id or name, "fulfillment.some", name, message.SerializeToString())


def order(orders: Orders, *columns: str) -> tuple[Any, ...]:
    row = orders.database.execute(f"SELECT {','.join(columns)} FROM paid_order WHERE order_id = ?", (ORDER_ID,))  # noqa: S608
    return cast("tuple[Any, ...]", row.fetchone())


class TestTelling:
    def test_a_paid_order_is_told_until_it_is_accepted(self, orders: Orders) -> None:
        orders.add(paid())
        assert orders.payments_to_tell(NOW) == [paid()]
        orders.told_payment(ORDER_ID, NOW + 60)
        assert orders.payments_to_tell(NOW + 59) == []
        assert orders.payments_to_tell(NOW + 60) == [paid()]
        hear(orders, told.FulfillmentAccepted(order_id=ORDER_ID))
        assert orders.payments_to_tell(NOW + 600) == []

    def test_what_was_told_longest_ago_comes_first_and_one_look_is_bounded(self, orders: Orders) -> None:
        orders.told_payment(ORDER_ID, NOW - 1)
        for number in range(BATCH):
            orders.add(paid(f"T-{number}"))
        first = orders.payments_to_tell(NOW)
        assert len(first) == BATCH
        assert paid() not in first

    def test_another_process_finds_what_is_to_be_told(self, orders: Orders, tmp_path: Path) -> None:
        orders.close()
        other = Orders(tmp_path / "shop.sqlite3")
        assert other.payments_to_tell(NOW) == [paid()]
        other.close()


class TestHandling:
    @pytest.mark.parametrize(
        "turns",
        [
            (told.FulfillmentAccepted, told.FulfillmentPurchased, told.FulfillmentReady, told.FulfillmentDelivered),
            (told.FulfillmentDelivered, told.FulfillmentReady, told.FulfillmentPurchased, told.FulfillmentAccepted),
        ],
        ids=["in order", "the other way round"],
    )
    def test_a_status_only_goes_forward(self, orders: Orders, turns: Sequence[Callable[..., Message]]) -> None:
        for turn in turns:
            assert hear(orders, turn(order_id=ORDER_ID))
        assert order(orders, "status", "is_accepted") == ("delivered", 1)

    def test_an_event_has_its_effect_once(self, orders: Orders) -> None:
        canceled = told.FulfillmentCanceled(order_id=ORDER_ID, quantity=2)
        assert hear(orders, canceled, "event-1")
        assert not hear(orders, canceled, "event-1")
        assert hear(orders, canceled, "event-2")
        assert order(orders, "canceled_keys") == (4,)

    def test_an_effect_that_fails_leaves_no_trace_and_happens_at_the_repeat(self, orders: Orders) -> None:
        orders.database.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON paid_order BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
        accepted = told.FulfillmentAccepted(order_id=ORDER_ID)
        with pytest.raises(sqlite3.IntegrityError):
            hear(orders, accepted)
        orders.database.execute("DROP TRIGGER full")
        assert hear(orders, accepted)
        assert order(orders, "is_accepted") == (1,)

    def test_attention_is_shown_until_it_is_ready(self, orders: Orders) -> None:
        hear(orders, told.FulfillmentNeedsAttention(order_id=ORDER_ID, reason="PURCHASE_REFUSED"))
        assert order(orders, "attention", "status") == ("PURCHASE_REFUSED", "paid")
        hear(orders, told.FulfillmentReady(order_id=ORDER_ID))
        assert order(orders, "attention", "status") == ("", "ready")

    def test_an_event_that_came_after_this_version_does_nothing(self, orders: Orders) -> None:
        assert orders.handle("event-9", "fulfillment.new", "keyferry.events.v1.FulfillmentNew", b"\xff")
        assert order(orders, "status") == ("paid",)

    def test_garbage_is_told_before_anything_is_written(self, orders: Orders) -> None:
        with pytest.raises(DecodeError):
            orders.handle("event-1", "fulfillment.ready", "keyferry.events.v1.FulfillmentReady", b"\xff")
        assert hear(orders, told.FulfillmentReady(order_id=ORDER_ID), "event-1")

    def test_every_event_for_the_shop_has_an_effect_but_what_it_need_not_know(self) -> None:
        events = {message.full_name for message in told.DESCRIPTOR.message_types_by_name.values()}
        assert events - Orders._EFFECTS.keys() == {
            f"keyferry.events.v1.{name}" for name in ("FulfillmentKeyReady", "RefundLine")
        }


class TestRefunds:
    def test_what_is_asked_for_is_paid_back_and_told_until_it_is_taken(self, orders: Orders) -> None:
        hear(orders, REQUEST)
        assert orders.refunds_to_pay(NOW) == [(REQUEST, paid())]
        assert orders.refunds_to_tell(NOW) == []
        orders.paid_back("request-1", "refund-1", NOW)
        assert orders.refunds_to_pay(NOW) == []
        ((name, message),) = orders.refunds_to_tell(NOW)
        refund = message.refund
        assert (name, refund.refund_id, refund.payment_id, refund.provider) == (
            "request-1",
            "refund-1",
            "pay-S-1",
            "stripe",
        )
        assert (refund.amount, list(refund.refund_request_ids)) == (AMOUNT, ["request-1"])
        assert not refund.item_ids
        assert refund.refund_time.ToMicroseconds() == NOW * 1_000_000
        orders.told_refund("request-1", NOW + 60)
        assert orders.refunds_to_tell(NOW + 59) == []
        assert orders.refunds_to_tell(NOW + 60) == [(name, message)]
        hear(orders, told.FulfillmentRefunded(order_id=ORDER_ID, refund_id="refund-1", provider="stripe"))
        assert orders.refunds_to_tell(NOW + 600) == []

    def test_a_request_told_under_two_ids_is_one_refund(self, orders: Orders) -> None:
        assert hear(orders, REQUEST, "event-1")
        assert hear(orders, REQUEST, "event-2")
        assert len(orders.refunds_to_pay(NOW)) == 1

    def test_a_second_answer_of_the_provider_changes_nothing(self, orders: Orders) -> None:
        hear(orders, REQUEST)
        orders.paid_back("request-1", "refund-1", NOW)
        orders.paid_back("request-1", "refund-2", NOW)
        ((_, message),) = orders.refunds_to_tell(NOW)
        assert message.refund.refund_id == "refund-1"

    def test_money_is_not_paid_back_for_an_order_that_is_not_ours(self, orders: Orders) -> None:
        other = told.FulfillmentRefundRequested(order_id="X-1", refund_request_id="request-9", amount=AMOUNT)
        assert hear(orders, other)
        assert orders.refunds_to_pay(NOW) == []
        assert orders.database.execute("SELECT count(*) FROM refund").fetchone() == (1,)

    def test_one_that_the_provider_refuses_waits_and_does_not_hold_up_the_others(
        self, orders: Orders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "LOOK_SECONDS", 0)
        hear(orders, REQUEST, "event-1")
        second = told.FulfillmentRefundRequested(order_id=ORDER_ID, refund_request_id="request-2", amount=AMOUNT)
        hear(orders, second, "event-2")
        asked: list[str] = []

        async def pay_back(request: told.FulfillmentRefundRequested, _paid: PaymentConfirmed) -> str:
            asked.append(request.refund_request_id)
            if request.refund_request_id == "request-1" and asked.count("request-1") == 1:
                raise ValueError("the provider says no")
            return f"refund-{request.refund_request_id}"

        asyncio.run(pay_back_once(orders, pay_back, repeat_seconds=3600))
        assert asked == ["request-1", "request-2"]
        asyncio.run(pay_back_once(orders, pay_back, repeat_seconds=3600))
        assert asked == ["request-1", "request-2"]
        asyncio.run(pay_back_once(orders, pay_back, repeat_seconds=0))
        orders.told_refund("request-1", 0)
        asyncio.run(pay_back_once(orders, pay_back, repeat_seconds=0))
        assert asked == ["request-1", "request-2", "request-1"]
        assert [name for name, _ in orders.refunds_to_tell(NOW)] == ["request-1", "request-2"]


@dataclass
class Heard:
    """One message as the client sees it, and what it was answered."""

    data: bytes
    headers: dict[str, str] | None
    subject: str = "fulfillment.ready"
    answers: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        self.answers.append("ack")

    async def term(self) -> None:
        self.answers.append("term")


class TestTaking:
    READY = told.FulfillmentReady(order_id=ORDER_ID).SerializeToString()
    HEADERS = {"Ce-Id": "event-1", "ce-type": "keyferry.events.v1.FulfillmentReady"}  # noqa: RUF012 # read only

    def take(self, orders: Orders, data: bytes, headers: dict[str, str] | None) -> list[str]:
        heard = Heard(data, headers)
        asyncio.run(take(orders, cast("Msg", heard)))
        return heard.answers

    def test_an_event_and_its_repeat_are_acknowledged(self, orders: Orders) -> None:
        assert self.take(orders, self.READY, self.HEADERS) == ["ack"]
        assert self.take(orders, self.READY, self.HEADERS) == ["ack"]
        assert orders.database.execute("SELECT status FROM status_change").fetchall() == [("ready",)]

    @pytest.mark.parametrize(
        ("data", "headers"),
        [(READY, None), (READY, {"ce-id": "event-1"}), (b"\xff", HEADERS)],
        ids=["no headers", "no type", "no protobuf"],
    )
    def test_what_cannot_be_understood_does_not_come_again(
        self, orders: Orders, data: bytes, headers: dict[str, str] | None
    ) -> None:
        assert self.take(orders, data, headers) == ["term"]

    def test_what_could_not_be_stored_is_not_acknowledged(self, orders: Orders) -> None:
        orders.database.execute("DROP TABLE status_change")
        heard = Heard(self.READY, self.HEADERS)
        with pytest.raises(sqlite3.OperationalError):
            asyncio.run(take(orders, cast("Msg", heard)))
        assert heard.answers == []
