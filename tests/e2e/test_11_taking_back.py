"""Money and keys that go back, and what staff mends: in the end everybody's books agree."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import boto3
import pytest
from botocore.config import Config
from chassis.errors import RemoteError
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentCanceled,
    FulfillmentDelivered,
    FulfillmentNeedsAttention,
    FulfillmentRefunded,
    FulfillmentRefundRequested,
)
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as admin_pb
from keyferry.fulfillment.v1 import fulfillment_pb2, fulfillment_service_pb2
from keyferry.kinguin.v1 import kinguin_service_pb2
from sandbox.customer import Refused
from sandbox.setup import BUCKET
from sandbox.shop import PROVIDER, Purchase, new_order_id, paid_order

from tests.e2e.staff import ADMIN, Story, a_payment, a_refund, euros, moment, request_id
from tests.e2e.system import System
from tests.unit.vault.jose_by_hand import write_agreed

PRODUCT = "65a0c1d2e3f4051627380001"
TWO_OFFERS, CHEAPER, DEARER = "65a0c1d2e3f4051627380002", "65b0c1d2e3f4051627380002", "65b0c1d2e3f4051627380012"
SOLD_OUT, SOLD_OUT_OFFER = "65a0c1d2e3f4051627380009", "65b0c1d2e3f4051627380009"
PRICE = Purchase(PRODUCT).unit_price_cents
# Of what is paid back the supplier says first the one, then the other.
WENT_BACK = {"RETURNED", "REFUNDED"}
TOP_UP_CENTS = 10_000
MOST_RESENT = 5
# What is younger than this a report leaves to the next one.
GRACE_SECONDS = 1


@pytest.fixture(scope="module")
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Give a shop that waits for no stock, so that what nobody sells is told at once."""
    running = System(
        tmp_path_factory.mktemp("taking-back"),
        environment={
            "KEYFERRY_STOCK_PATIENCE_SECONDS": "0",
            "KEYFERRY_REPORT_GRACE_SECONDS": str(GRACE_SECONDS),
        },
    )
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
async def story(own_system: System) -> AsyncIterator[Story]:
    async with Story.opened(own_system) as story:
        await reconcile(story)
        yield story


async def reconcile(story: Story) -> admin_pb.Report:
    """Ask for a report of today and wait until it is made."""
    now = datetime.now(UTC)
    asked = await story.staff.ReconcilePayments(
        admin_pb.ReconcilePaymentsRequest(
            request_id=request_id(),
            start_time=moment(now - timedelta(hours=12)),
            end_time=moment(now + timedelta(minutes=1)),
            actor=ADMIN,
        )
    )
    assert asked.report.state == admin_pb.REPORT_STATE_RUNNING
    made = asked.report

    async def is_made() -> bool:
        nonlocal made
        made = (await story.staff.GetReport(admin_pb.GetReportRequest(report_id=made.report_id))).report
        return made.state != admin_pb.REPORT_STATE_RUNNING

    await story.system.until_true(is_made, seconds=60)
    assert made.state == admin_pb.REPORT_STATE_DONE, made.failure
    return made


async def cancel(story: Story, order_id: str) -> fulfillment_pb2.Fulfillment:
    request = fulfillment_service_pb2.CancelFulfillmentRequest(
        request_id=request_id(), order_id=order_id, actor=ADMIN, reason="the customer changed their mind"
    )
    first, again = await story.orders.CancelFulfillment(request), await story.orders.CancelFulfillment(request)
    assert first == again
    return first.fulfillment


def objects(story: Story) -> set[str]:
    """Return the names of everything that the object store holds."""
    secrets = json.loads(story.system.layout.secrets.read_text())
    client = boto3.client(
        "s3",
        endpoint_url=story.system.endpoints["s3"],
        aws_access_key_id=secrets["R2_ACCESS_KEY_ID"],
        aws_secret_access_key=secrets["R2_SECRET_ACCESS_KEY"],
        region_name="auto",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {each["Key"] for page in pages for each in page.get("Contents", [])}


def object_of(story: Story, key_id: str) -> list[str]:
    return [name for name in objects(story) if key_id in name]


async def test_an_order_that_waits_is_canceled_and_its_late_keys_go_back(story: Story) -> None:
    await story.control("faults", {"action": "hold"})
    order_id = await story.system.pay("alice", Purchase(PRODUCT, quantity=2))
    await story.until(order_id, "AWAITING_KEYS")
    await story.behave()
    await cancel(story, order_id)
    (requested,) = await story.shop.hear(FulfillmentRefundRequested, order_id)
    assert requested.amount == euros(2 * PRICE)
    assert [(line.item_id, line.quantity, line.amount) for line in requested.lines] == [("1", 2, euros(2 * PRICE))]
    (canceled,) = await story.shop.hear(FulfillmentCanceled, order_id)
    assert (canceled.item_id, canceled.quantity, canceled.reason) == ("1", 2, "CANCEL_ASKED")
    with pytest.raises(RemoteError) as nothing_left:
        await cancel(story, order_id)
    assert nothing_left.value.reason == "NOTHING_TO_CANCEL"

    await story.control("release", {})
    taken = await story.shop.refund(order_id, 2 * PRICE, requests=[requested.refund_request_id])
    assert (taken.amount, taken.opened_count) == (euros(2 * PRICE), 0)
    await story.until(order_id, "REFUNDED")

    async def all_back() -> bool:
        return set(await story.sold_keys(order_id)) <= WENT_BACK

    await story.system.until_true(all_back)
    assert await story.key_ids(order_id) == []
    assert story.shop.told(FulfillmentRefundRequested, order_id) == [requested]


async def test_a_refund_of_an_unopened_key_takes_it_back_and_destroys_it(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (key_id,) = await story.key_ids(order_id)
    assert object_of(story, key_id)
    async with story.as_shop() as shop:
        refund = fulfillment_service_pb2.RefundPaymentRequest(request_id=request_id(), refund=a_refund(order_id, PRICE))
        assert await shop.RefundPayment(refund) == await shop.RefundPayment(refund)
    (told,) = await story.shop.hear(FulfillmentRefunded, order_id)
    assert told.refund_id == refund.refund.refund_id
    await story.until(order_id, "REFUNDED")
    assert set(await story.sold_keys(order_id)) <= WENT_BACK
    assert object_of(story, key_id) == []
    with pytest.raises(Refused, match=r"409 KEY_REVOKED"):
        await story.open_key(order_id, key_id)
    assert story.shop.told(FulfillmentRefundRequested, order_id) == []


async def test_a_key_whose_name_was_lost_is_taken_back_with_the_others(story: Story) -> None:
    """As if its collection had been answered to nobody: vault alone knows of it when the money goes back."""
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (key_id,) = await story.key_ids(order_id)
    connection = await asyncpg.connect(f"{story.system.endpoints['database'].rpartition('/')[0]}/fulfillment")
    await connection.execute("DELETE FROM order_key WHERE key_id = $1", key_id)
    await connection.close()
    await story.shop.refund(order_id, PRICE)
    await story.until(order_id, "REFUNDED")
    assert set(await story.sold_keys(order_id)) <= WENT_BACK
    assert object_of(story, key_id) == []


async def test_keys_that_are_being_collected_while_the_money_goes_back_are_for_nobody(story: Story) -> None:
    """Their collection is answered when all is over: vault has sealed what nobody waits for any more."""
    slow = {"action": "delay", "operation": "listKeys", "seconds": 3, "when": "after"}
    await story.control("faults", slow)
    order_id = await story.system.pay("alice", Purchase(PRODUCT))

    async def is_under_way() -> bool:
        (rule,) = (await story.http.get(f"{story.system.endpoints['kinguin_control']}/faults")).json()["rules"]
        return int(rule["hits"]) > 0

    await story.system.until_true(is_under_way)
    await story.shop.refund(order_id, PRICE)
    await story.until(order_id, "REFUNDED")
    await story.behave()
    connection = await asyncpg.connect(f"{story.system.endpoints['database'].rpartition('/')[0]}/vault")

    async def is_taken_back() -> bool:
        states = await connection.fetch("SELECT state FROM sealed_key WHERE order_id = $1", order_id)
        return [row["state"] for row in states] in (["REVOKED"], ["SHREDDED"])

    try:
        await story.system.until_true(is_taken_back)
    finally:
        await connection.close()
    assert await story.key_ids(order_id) == []
    assert set(await story.sold_keys(order_id)) <= WENT_BACK


async def test_what_the_supplier_books_twice_goes_back_by_itself(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (purchase,) = await story.bought(order_id)
    await story.control("faults", {"action": "accept_duplicate_external_id"})
    await story.buy_outside(purchase.external_id, PRODUCT)
    await story.behave()
    await asyncio.sleep(GRACE_SECONDS)
    report = await reconcile(story)
    found = await story.staff.ListDifferences(admin_pb.ListDifferencesRequest(report_id=report.report_id))
    assert [(each.kind, each.mended) for each in found.differences] == [("BOUGHT_TWICE", True)]

    async def is_back() -> bool:
        own, other = await story.system.sold(story.http, external_id=purchase.external_id)
        assert {key["status"] for key in own["keys"]} == {"DELIVERED"}
        return {key["status"] for key in other["keys"]} == {"REFUNDED"}

    await story.system.until_true(is_back)
    (key_id,) = await story.key_ids(order_id)
    assert await story.open_key(order_id, key_id)


async def test_a_refund_after_opening_is_recorded_and_takes_nothing_back(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (key_id,) = await story.key_ids(order_id)
    await story.open_key(order_id, key_id)
    await story.shop.hear(FulfillmentDelivered, order_id)
    taken = await story.shop.refund(order_id, PRICE)
    assert taken.opened_count == 1
    fulfillment = await story.system.fulfillment(order_id)
    assert (fulfillment.state, fulfillment.refunded) == (fulfillment_pb2.STATE_DELIVERED, euros(PRICE))
    assert await story.sold_keys(order_id) == ["DELIVERED"]
    assert await story.open_key(order_id, key_id)
    await story.system.until_true(lambda: story.system.actions(order_id, "payment.refunded"))


async def test_of_an_order_that_the_supplier_cancels_the_rest_is_paid_back(story: Story) -> None:
    await story.control("faults", [{"action": "partial", "keys": 2, "seconds": 2}, {"action": "cancel"}])
    order_id = await story.system.pay("alice", Purchase(PRODUCT, quantity=5))
    await story.until(order_id, "PARTLY_CANCELED")
    await story.behave()
    (requested,) = await story.shop.hear(FulfillmentRefundRequested, order_id)
    assert [(line.item_id, line.quantity, line.amount) for line in requested.lines] == [("1", 3, euros(3 * PRICE))]
    assert (requested.amount, requested.reason) == (euros(3 * PRICE), "KEYS_MISSING")
    key_ids = await story.key_ids(order_id)
    opened = {await story.open_key(order_id, key_id) for key_id in key_ids}
    assert len(opened) == 2
    assert opened <= set(await story.system.serials(story.http, order_id))
    await story.shop.refund(order_id, 3 * PRICE, requests=[requested.refund_request_id])
    await story.until(order_id, "PARTLY_CANCELED")


async def test_what_one_offer_has_no_more_is_bought_of_another(story: Story) -> None:
    await story.control("faults", {"action": "out_of_stock", "product_id": TWO_OFFERS, "count": 1})
    order_id = await story.system.pay("alice", Purchase(TWO_OFFERS))
    await story.until(order_id, "READY")
    await story.behave()
    first, second = sorted(await story.bought(order_id), key=lambda purchase: purchase.attempt)
    assert (first.state, first.offer_id, first.refusal) == (
        fulfillment_pb2.STATE_SUPERSEDED,
        CHEAPER,
        "ProductUnavailable",
    )
    assert (second.state, second.offer_id, second.attempt) == (fulfillment_pb2.STATE_READY, DEARER, 2)
    assert len(await story.system.sold(story.http, external_id=first.external_id)) == 0
    assert await story.sold_keys(order_id) == ["DELIVERED"]


async def refused_purchase(story: Story, order_id: str) -> fulfillment_pb2.Purchase:
    """Wait until a person is asked for, and return what could not be bought."""
    await story.until(order_id, "NEEDS_ATTENTION")
    (told,) = await story.shop.hear(FulfillmentNeedsAttention, order_id)
    offered = {fulfillment_pb2.ACTION_RETRY, fulfillment_pb2.ACTION_DELIVER_MANUALLY, fulfillment_pb2.ACTION_CANCEL}
    assert (told.reason, set(told.actions)) == ("PURCHASE_REFUSED", offered)
    (purchase,) = await story.bought(order_id)
    assert set(purchase.actions) == offered
    return purchase


async def test_what_nobody_sells_is_delivered_by_hand_and_never_bought(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(SOLD_OUT))
    purchase = await refused_purchase(story, order_id)
    # Of what is sold out the supplier says no more than that (K8).
    assert purchase.refusal == "product_unknown"
    public = json.loads((await story.staff.GetUploadKey(admin_pb.GetUploadKeyRequest())).upload_jwk)
    delivery = request_id()
    bound = {"order_id": order_id, "item_id": "1", "request_id": delivery}
    request = admin_pb.DeliverKeyManuallyRequest(
        request_id=delivery,
        order_id=order_id,
        external_id=purchase.external_id,
        key_jwe=write_agreed({"kid": public["kid"], **bound}, b"BY-HAND-00001", public),
        content_type="text/plain",
        actor=ADMIN,
        reason="bought at the publisher's",
    )
    answer = await story.staff.DeliverKeyManually(request)
    assert await story.staff.DeliverKeyManually(request) == answer
    await story.until(order_id, "READY")
    # There is stock again; nobody must buy what was delivered.
    await story.control("stock", {"offer_id": SOLD_OUT_OFFER, "text": 1})
    assert await story.open_key(order_id, answer.key_id) == "BY-HAND-00001"
    await story.shop.hear(FulfillmentDelivered, order_id)
    assert await story.sold_keys(order_id) == []
    await story.control("stock", {"offer_id": SOLD_OUT_OFFER, "text": 0})


async def test_a_retry_buys_what_is_in_stock_again(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(SOLD_OUT, quantity=2))
    await refused_purchase(story, order_id)
    await story.control("stock", {"offer_id": SOLD_OUT_OFFER, "text": 2})
    retry = admin_pb.RetryFulfillmentRequest(
        request_id=request_id(), order_id=order_id, actor=ADMIN, reason="there is stock again"
    )
    assert await story.staff.RetryFulfillment(retry) == await story.staff.RetryFulfillment(retry)
    await story.until(order_id, "READY")
    assert await story.sold_keys(order_id) == ["DELIVERED", "DELIVERED"]
    with pytest.raises(RemoteError) as nothing_left:
        await story.staff.RetryFulfillment(
            admin_pb.RetryFulfillmentRequest(request_id=request_id(), order_id=order_id, actor=ADMIN, reason="again")
        )
    assert nothing_left.value.reason == "NOTHING_TO_RETRY"


async def test_a_dead_key_is_replaced_once(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (dead,) = await story.key_ids(order_id)
    text = await story.open_key(order_id, dead)
    request = admin_pb.ReplaceKeyRequest(
        request_id=request_id(), order_id=order_id, key_id=dead, actor=ADMIN, reason="the key does not work"
    )
    assert await story.staff.ReplaceKey(request) == await story.staff.ReplaceKey(request)
    request.request_id = request_id()
    with pytest.raises(RemoteError) as twice:
        await story.staff.ReplaceKey(request)
    assert twice.value.reason == "KEY_REPLACED"

    async def is_there() -> bool:
        return len(await story.key_ids(order_id)) == 2

    await story.system.until_true(is_there)
    first, second = await story.bought(order_id)
    assert sorted([first.replaced_key_id, second.replaced_key_id]) == ["", dead]
    (fresh,) = {*await story.key_ids(order_id)} - {dead}
    other = await story.open_key(order_id, fresh)
    assert {text, other} == set(await story.system.serials(story.http, order_id))
    assert text != other


async def test_the_mail_is_sent_again_as_the_same_mail_and_not_for_ever(story: Story) -> None:
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    resent = 0
    while True:

        async def is_sent(count: int = resent + 1) -> bool:
            return len(await story.system.mails(story.http, order_id)) == count

        await story.system.until_true(is_sent)
        request = admin_pb.ResendDeliveryEmailRequest(
            request_id=request_id(), order_id=order_id, actor=ADMIN, reason="the customer lost it"
        )
        if resent == MOST_RESENT:
            break
        first = await story.staff.ResendDeliveryEmail(request)
        assert await story.staff.ResendDeliveryEmail(request) == first
        resent += 1
    with pytest.raises(RemoteError) as limit:
        await story.staff.ResendDeliveryEmail(request)
    assert limit.value.reason == "MAIL_LIMIT"
    assert limit.value.retry_after
    assert len({mail["message_id"] for mail in await story.system.mails(story.http, order_id)}) == 1


async def test_payments_come_before_their_order_in_parts_and_too_much(story: Story) -> None:
    now = datetime.now(UTC)
    order_id = new_order_id(now)
    order = paid_order("alice", Purchase(PRODUCT, quantity=2), order_id=order_id, now=now).order
    early = a_payment(order_id, PRICE, f"early-{order_id}")
    await story.shop.tell(PaymentConfirmed(payment=early), subject="payments.confirmed", about=order_id)

    async def unmatched() -> list[str]:
        found = await story.staff.ListPayments(admin_pb.ListPaymentsRequest(unmatched=True))
        return [each.payment.payment_id for each in found.payments if each.payment.order_id == order_id]

    await story.system.until_true(unmatched)
    assert await unmatched() == [early.payment_id]
    async with story.as_shop() as shop:
        submitted = await shop.SubmitOrder(
            fulfillment_service_pb2.SubmitOrderRequest(request_id=request_id(), order=order)
        )
        assert submitted.fulfillment.state == fulfillment_pb2.STATE_AWAITING_PAYMENT
        assert submitted.fulfillment.paid == euros(PRICE)
        await story.shop.hear(FulfillmentAccepted, order_id)
        assert await unmatched() == []
        part = fulfillment_service_pb2.ConfirmPaymentRequest(
            request_id=request_id(), payment=a_payment(order_id, PRICE + 1, f"late-{order_id}")
        )
        too_much = (await shop.ConfirmPayment(part)).fulfillment
    assert (too_much.state, too_much.reason) == (fulfillment_pb2.STATE_NEEDS_ATTENTION, "PAYMENT_MISMATCH")
    assert list(too_much.actions) == [fulfillment_pb2.ACTION_REFUND, fulfillment_pb2.ACTION_CANCEL]
    assert await story.bought(order_id) == []
    await story.shop.refund(order_id, 1, payment_id=part.payment.payment_id)
    await story.until(order_id, "READY")
    assert len(await story.key_ids(order_id)) == 2


async def test_a_dead_letter_is_listed_mended_and_handled_after_all(story: Story) -> None:
    """The shop tells of a payment under a wrong order's number, then under the right one."""
    now = datetime.now(UTC)
    order_id, wrong = new_order_id(now), f"W{new_order_id(now)}"
    told = paid_order("alice", Purchase(PRODUCT), order_id=order_id, now=now)
    mistaken = a_payment(wrong, PRICE, told.payment.payment_id)
    await story.shop.tell(PaymentConfirmed(payment=mistaken), subject="payments.confirmed", about=wrong)

    async def is_known() -> bool:
        request = admin_pb.GetPaymentRequest(provider=PROVIDER, payment_id=mistaken.payment_id)
        try:
            return (await story.staff.GetPayment(request)).payment.payment.order_id == wrong
        except RemoteError:
            return False

    await story.system.until_true(is_known)
    await story.shop.tell(told, subject="payments.confirmed", about=order_id)

    async def letters(*, replayed: bool = False) -> list[admin_pb.DeadLetter]:
        listed = await story.staff.ListDeadLetters(admin_pb.ListDeadLettersRequest(replayed=replayed))
        return list(listed.dead_letters)

    await story.system.until_true(letters)
    (letter,) = await letters()
    assert (letter.consumer, letter.subject, letter.failure.split(":")[0]) == (
        "fulfillment-payments",
        "payments.confirmed",
        "PAYMENT_REUSED",
    )

    def a_replay() -> admin_pb.ReplayDeadLetterRequest:
        return admin_pb.ReplayDeadLetterRequest(
            request_id=request_id(), dead_letter_id=letter.dead_letter_id, actor=ADMIN, reason="the payment was mended"
        )

    with pytest.raises(RemoteError) as too_early:
        await story.staff.ReplayDeadLetter(a_replay())
    assert too_early.value.reason == "DEAD_LETTER_FAILED"
    connection = await asyncpg.connect(f"{story.system.endpoints['database'].rpartition('/')[0]}/fulfillment")
    await connection.execute("DELETE FROM payment WHERE payment_id = $1", mistaken.payment_id)
    await connection.close()
    assert (await story.staff.ReplayDeadLetter(a_replay())).dead_letter.HasField("replay_time")
    await story.until(order_id, "READY")
    assert (await letters(), len(await letters(replayed=True))) == ([], 1)


async def test_afterwards_all_books_agree_to_the_cent(story: Story) -> None:
    """Runs last: over everything that the stories before have left."""
    await story.control("balance", {"add": "100.00"})
    await story.account.RecordTopUp(
        kinguin_service_pb2.RecordTopUpRequest(
            request_id=request_id(),
            actor=ADMIN,
            amount=euros(TOP_UP_CENTS),
            top_up_time=moment(datetime.now(UTC)),
            reference="bank transfer 1",
        )
    )
    await asyncio.sleep(GRACE_SECONDS)
    report = await reconcile(story)
    differences = await story.staff.ListDifferences(admin_pb.ListDifferencesRequest(report_id=report.report_id))
    assert dict(report.differences) == {}, differences
    assert (report.balance.top_ups, report.balance.unexplained) == (euros(TOP_UP_CENTS), euros(0))
    ledger = (await story.http.get(f"{story.system.endpoints['kinguin_control']}/ledger")).json()
    assert report.balance.closing.minor_units == int(float(ledger["balance"]) * 100 + 0.5)
    assert report.counts.supplier_orders == len(ledger["orders"])
    export = story.staff.ExportReport(admin_pb.ExportReportRequest(report_id=report.report_id))
    csv = b"".join([piece.csv async for piece in export])
    assert csv.decode().splitlines()[0].startswith("kind,")
