"""Orders from their payment to the mail, whatever is away in between: replicas, supplier, mail server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import fulfillment.__main__
import pytest
from chassis.jetstream import connect_nats
from fulfillment import progress, working
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentKeyReady,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
    FulfillmentRefundRequested,
)
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged, KinguinPurchaseReleased
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.kinguin.v1 import kinguin_service_pb2 as kinguin_pb
from sandbox.mailbox.behavior import Mode
from sandbox.pki import Identity

from tests.integration.fulfillment_neighbours import failed, in_doubt, unavailable
from tests.integration.fulfillment_system import (
    PUBLIC_URL,
    System,
    a_payment,
    an_order,
    submitting,
)
from tests.integration.real_servers import Postgres, eventually

LEASE_SECONDS = 2.0


@pytest.fixture
async def system(
    postgres: Postgres, streams: str, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    async with System.opened(postgres, streams, pki, tmp_path) as system:
        yield system


async def test_one_event_makes_an_order_ready_and_sends_its_mail(system: System) -> None:
    async with system.inside():
        await system.pay("order-1", quantity=10)
        await system.until("READY", "order-1")
        (mail,) = await system.until_mailed("order-1")
    assert sorted(request.quantity for request in system.kinguin.sold.values()) == [1, 9]
    assert {request.country_code for request in system.kinguin.sold.values()} == {"AT"}
    assert {request.order_id for request in system.kinguin.sold.values()} == {"order-1"}
    assert set(system.kinguin.customers.values()) == {"alice"}
    assert mail.recipients == ("alice@example.com",)
    assert mail.subject == "Ihre Bestellung order-1 ist bereit"
    assert mail.text.count(f"{PUBLIC_URL}/orders/order-1") == mail.html.count(f"{PUBLIC_URL}/orders/order-1") == 1
    assert str(mail.content["From"]) == "Keys <keys@shop.example>"
    assert mail.content["Auto-Submitted"] == "auto-generated"
    (accepted,) = [FulfillmentAccepted.FromString(data) for data in await system.told("fulfillment.accepted")]
    assert (accepted.order_id, accepted.payment_id) == ("order-1", "payment-of-order-1")
    bought = [FulfillmentPurchased.FromString(data) for data in await system.told("fulfillment.purchased")]
    assert {each.external_id for each in bought} == system.kinguin.sold.keys()
    ready = [FulfillmentKeyReady.FromString(data) for data in await system.told("fulfillment.key_ready")]
    assert len({each.key_id for each in ready}) == 10
    assert [FulfillmentReady.FromString(data).order_id for data in await system.told("fulfillment.ready")] == [
        "order-1"
    ]


async def test_what_is_told_reaches_the_stream(system: System) -> None:
    async with connect_nats(system.nats_url, name="test") as client:
        listening = await client.subscribe("fulfillment.>")
        async with system.inside():
            await system.pay("order-1")
            subjects = [(await listening.next_msg(timeout=20)).subject for _ in range(4)]
    assert subjects == [
        "fulfillment.accepted",
        "fulfillment.purchased",
        "fulfillment.key_ready",
        "fulfillment.ready",
    ]


async def test_a_payment_told_again_buys_nothing_again_and_is_accepted_again(system: System) -> None:
    async with system.inside():
        await system.pay("order-1")
        await system.until("READY", "order-1")
        await system.pay("order-1")

        async def accepted_twice() -> bool:
            return len(await system.told("fulfillment.accepted")) == 2

        await eventually(accepted_twice)
    assert len(system.kinguin.sold) == 1
    assert len(await system.rows("TABLE purchase")) == 1


async def test_a_payment_that_cannot_be_taken_becomes_a_dead_letter_and_the_rest_goes_on(system: System) -> None:
    faulty = PaymentConfirmed(payment=a_payment("order-1", 0), order=an_order("order-1"))
    elsewhere = PaymentConfirmed(payment=a_payment("order-1"), order=an_order("order-2"))
    async with system.inside():
        await system.publish("payments.confirmed", faulty, elsewhere)
        await system.pay("order-3")
        await system.until("READY", "order-3")

        async def buried() -> bool:
            return len(await system.rows("TABLE dead_letter")) == 2

        await eventually(buried)
    reasons = {row["reason"] for row in await system.rows("SELECT reason FROM dead_letter")}
    assert reasons == {
        "INVALID_REQUEST: payment.amount.minor_units: must be positive, in the currency's minor units",
        "INVALID_REQUEST: payment.order_id: must be the order's",
    }
    assert await system.states() == {"order-3": "READY"}


async def test_a_supplier_that_is_away_is_asked_again_ever_later(system: System) -> None:
    system.kinguin.placing = [in_doubt(), in_doubt(0.3), failed("SUPPLIER_UNAUTHORIZED")]
    async with system.inside():
        await system.pay("order-1")
        await system.until("READY", "order-1")
    (asked,) = system.kinguin.asked.values()
    assert asked == 4
    assert len(system.kinguin.sold) == 1


async def test_an_unavailable_gateway_holds_nothing_up_for_good(system: System) -> None:
    system.kinguin.placing = [unavailable() for _ in range(6)]
    system.kinguin.collecting = [unavailable() for _ in range(6)]
    async with system.inside():
        await system.pay("order-1")
        await system.until("READY", "order-1")
    assert len(system.kinguin.sold) == 1


async def test_a_refusal_is_told_with_its_line_and_never_asked_again(system: System) -> None:
    system.kinguin.placing = [failed("PURCHASE_REFUSED", kind="ConstraintViolation")]
    async with system.inside():
        await system.pay("order-1")
        await system.until("NEEDS_ATTENTION", "order-1")
        await asyncio.sleep(1)
    (attention,) = await system.told("fulfillment.needs_attention")
    message = FulfillmentNeedsAttention.FromString(attention)
    assert (message.item_id, message.reason) == ("item-1", "PURCHASE_REFUSED")
    (row,) = await system.rows("SELECT refusal, run_at FROM purchase")
    assert (row["refusal"], row["run_at"]) == ("ConstraintViolation", None)
    assert system.kinguin.asked.total() == 1
    assert not system.mails.list()


async def test_what_may_pass_is_asked_for_again_under_another_reference(system: System) -> None:
    system.kinguin.placing = [failed("PURCHASE_REFUSED", kind="ProductUnavailable")]
    async with system.inside():
        await system.pay("order-1")
        await system.until("READY", "order-1")
    first, second = await system.rows("SELECT external_id, state, refusal FROM purchase ORDER BY attempt")
    assert (first["state"], first["refusal"]) == ("SUPERSEDED", "ProductUnavailable")
    assert (second["state"], second["refusal"]) == ("READY", "")
    assert system.kinguin.asked == {first["external_id"]: 1, second["external_id"]: 1}
    assert not await system.told("fulfillment.needs_attention")


@pytest.mark.parametrize("reason", ["KEY_UNREADABLE", "SOURCE_REF_CONFLICT", "PURCHASE_UNKNOWN", "PURCHASE_NOT_PLACED"])
async def test_keys_that_can_never_be_collected_are_for_a_human(system: System, reason: str) -> None:
    system.kinguin.collecting = [failed(reason)]
    async with system.inside():
        await system.pay("order-1")
        await system.until("NEEDS_ATTENTION", "order-1")
    (row,) = await system.rows("SELECT reason FROM customer_order")
    assert row["reason"] == ("PURCHASE_UNKNOWN" if reason.startswith("PURCHASE") else "KEY_UNREADABLE")


async def test_what_cannot_be_read_is_for_a_human_and_what_came_beside_it_can_be_opened(system: System) -> None:
    system.kinguin.withheld = system.kinguin.unreadable = 1
    async with system.inside():
        await system.pay("order-1", quantity=2)
        await system.until("NEEDS_ATTENTION", "order-1")
        await system.until_mailed("order-1")
    (row,) = await system.rows("SELECT reason FROM customer_order")
    assert row["reason"] == "KEY_UNREADABLE"
    assert len(await system.rows("TABLE order_key")) == 1


async def test_a_canceled_rest_is_to_be_paid_back_and_what_came_can_be_opened(system: System) -> None:
    system.kinguin.withheld = 1
    system.kinguin.state = kinguin_pb.SUPPLIER_ORDER_STATE_CANCELED
    async with system.inside():
        await system.pay("order-1", quantity=2)
        await system.until("PARTLY_CANCELED", "order-1")
        await system.until_mailed("order-1")
    (row,) = await system.rows("SELECT reason FROM purchase")
    assert row["reason"] == "KEYS_MISSING"
    assert len(await system.rows("TABLE order_key")) == 1
    (told,) = await system.told("fulfillment.refund_requested")
    assert FulfillmentRefundRequested.FromString(told).amount.minor_units == 500


async def test_keys_that_come_later_are_fetched_when_the_supplier_says_so(system: System) -> None:
    system.kinguin.withheld = 2
    system.kinguin.state = kinguin_pb.SUPPLIER_ORDER_STATE_PROCESSING
    async with system.inside() as replica:
        await system.pay("order-1", quantity=2)
        await system.until("AWAITING_KEYS", "order-1")
        await system.rows("UPDATE purchase SET run_at = now() + interval '1 hour', lease_until = NULL")
        system.kinguin.withheld = 0
        (external_id,) = system.kinguin.sold
        hint = KinguinOrderChanged(external_id=external_id)
        await system.publish("kinguin.order.changed", hint, source="kinguin-gateway")
        await system.until("READY", "order-1")
        await system.open_keys("order-1")
        await system.until("DELIVERED", "order-1")
        async with system.calling(replica) as shop:
            found = (await shop.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-1"))).fulfillment
    assert all(key.HasField("open_time") for key in found.lines[0].keys)


async def test_while_buying_is_paused_orders_wait_and_are_bought_when_they_are_released(system: System) -> None:
    order_ids = ["order-1", "order-2", "order-3"]
    system.kinguin.is_paused = True
    async with system.inside() as replica:
        await system.pay(*order_ids)

        async def parked() -> bool:
            rows = await system.rows("SELECT reason FROM customer_order WHERE state = 'PURCHASING'")
            return [row["reason"] for row in rows] == ["BUYING_PAUSED"] * len(order_ids)

        await eventually(parked)
        async with system.calling(replica) as shop:
            found = (await shop.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-1"))).fulfillment
        assert (found.reason, found.lines[0].reason) == ("BUYING_PAUSED", "BUYING_PAUSED")
        system.kinguin.is_paused = False
        rows = await system.rows("SELECT external_id, order_id FROM purchase WHERE park_time IS NOT NULL")
        released = [KinguinPurchaseReleased(external_id=row["external_id"], order_id=row["order_id"]) for row in rows]
        await system.publish("kinguin.purchase.released", *released, source="kinguin-gateway")
        await system.until("READY", *order_ids)
    assert {row["reason"] for row in await system.rows("TABLE customer_order")} == {""}


async def test_a_mail_server_that_is_away_does_not_hold_the_order(system: System) -> None:
    await system.stop_mail_server()
    async with system.inside():
        await system.pay("order-1")
        await system.until("READY", "order-1")

        async def tried() -> bool:
            rows = await system.rows("SELECT tries FROM mail WHERE failure <> ''")
            return bool(rows) and rows[0]["tries"] >= 1

        await eventually(tried)
        assert not system.mails.list()
        system.start_mail_server()
        assert len(await system.until_mailed("order-1")) == 1


async def test_a_lost_answer_of_the_mail_server_makes_a_copy_under_the_same_message_id(system: System) -> None:
    system.mail_behavior.set(Mode.LOSE_ANSWER, 1)
    async with system.inside():
        await system.pay("order-1")
        mails = await system.until_mailed("order-1")
    assert len(mails) == 2
    assert len({str(mail.content["Message-ID"]) for mail in mails}) == 1


async def test_a_mail_that_is_deferred_is_sent_later_and_one_refused_never(system: System) -> None:
    system.mail_behavior.set(Mode.DEFER, 2)
    async with system.inside():
        await system.pay("order-1")
        assert len(await system.until_mailed("order-1")) == 1
        system.mail_behavior.set(Mode.REFUSE, 1)
        await system.pay("order-2")
        await system.until("READY", "order-2")

        async def refused() -> bool:
            rows = await system.rows("SELECT run_at, failure FROM mail WHERE order_id = 'order-2'")
            return [(row["run_at"], row["failure"]) for row in rows] == [(None, "refused: 550")]

        await eventually(refused)
    assert len(system.mails.list()) == 1


async def test_an_address_that_no_mail_can_go_to_is_noted_and_holds_nothing(system: System) -> None:
    order = an_order("order-1")
    order.customer.email = "a..b@example.com"
    async with system.inside() as replica, system.calling(replica) as shop:
        await shop.SubmitOrder(submitting(order, a_payment("order-1")))
        await system.until("READY", "order-1")

        async def refused() -> bool:
            return bool(await system.rows("SELECT 1 FROM mail WHERE run_at IS NULL AND failure LIKE 'refused%'"))

        await eventually(refused)


async def test_two_replicas_do_the_work_once(system: System) -> None:
    order_ids = [f"order-{number}" for number in range(20)]
    system.kinguin.seconds = 0.05
    async with system.inside(), system.inside():
        await system.pay(*order_ids)
        await system.until("READY", *order_ids)
        mails = await system.until_mailed(*order_ids)
    assert len(system.kinguin.sold) == 20
    assert set(system.kinguin.asked.values()) == {1}
    assert len(mails) == 20


@pytest.fixture
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (progress, working):
        monkeypatch.setattr(module, "LEASE", timedelta(seconds=LEASE_SECONDS))
    monkeypatch.setattr(fulfillment.__main__, "EXTEND_SECONDS", LEASE_SECONDS / 4)


@pytest.mark.usefixtures("_short_leases")
async def test_a_call_that_lasts_longer_than_a_lease_is_still_made_once(system: System) -> None:
    system.kinguin.seconds = 2 * LEASE_SECONDS
    async with system.inside(), system.inside():
        await system.pay("order-1")
        await system.until("AWAITING_KEYS", "order-1")
    assert set(system.kinguin.asked.values()) == {1}


@pytest.mark.usefixtures("_short_leases")
async def test_what_a_stopped_replica_had_is_taken_over_when_its_lease_ends(system: System) -> None:
    async def asked() -> bool:
        return system.kinguin.asked.total() == 1

    system.kinguin.seconds = 60
    async with system.inside():
        await system.pay("order-1")
        await eventually(asked)
    assert await system.states() == {"order-1": "PURCHASING"}
    system.kinguin.seconds = 0
    async with system.inside():
        await system.until("READY", "order-1")
    assert set(system.kinguin.asked.values()) == {2}
    assert len(system.kinguin.sold) == 1
