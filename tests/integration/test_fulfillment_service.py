"""The RPCs of fulfillment over mutual TLS, against PostgreSQL, NATS, and neighbours that count."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from chassis.errors import RemoteError
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.type.v1 import actor_pb2
from sandbox.pki import Identity

from tests.integration.fulfillment_neighbours import UNKNOWN_PRODUCT, failed, unavailable
from tests.integration.fulfillment_system import (
    ALICE,
    BOB,
    Replica,
    System,
    a_payment,
    an_order,
    field_names,
    submitting,
)
from tests.integration.real_servers import Postgres

if TYPE_CHECKING:
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub

ADMIN = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")


@pytest.fixture
async def system(
    postgres: Postgres, streams: str, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    async with System.opened(postgres, streams, pki, tmp_path) as system:
        yield system


@pytest.fixture
async def replica(system: System) -> AsyncIterator[Replica]:
    async with system.inside() as replica:
        yield replica


@pytest.fixture
async def shop(system: System, replica: Replica) -> AsyncIterator["FulfillmentServiceAsyncStub"]:
    async with system.calling(replica) as stub:
        yield stub


@pytest.fixture
async def edge(system: System, replica: Replica) -> AsyncIterator["FulfillmentServiceAsyncStub"]:
    async with system.calling(replica, identity="edge") as stub:
        yield stub


async def fails(call: Awaitable[object]) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await call
    return caught.value


async def a_key_of(shop: "FulfillmentServiceAsyncStub", system: System, order_id: str = "order-1") -> str:
    """Submit a paid order, wait for its key, and name it."""
    await shop.SubmitOrder(submitting(an_order(order_id), a_payment(order_id)))
    await system.until("READY", order_id)
    found = (await shop.GetFulfillment(pb.GetFulfillmentRequest(order_id=order_id))).fulfillment
    return found.lines[0].keys[0].key_id


def wishing(key_id: str, actor: actor_pb2.Actor = ALICE, order_id: str = "order-1") -> pb.RevealKeyRequest:
    return pb.RevealKeyRequest(
        request_id=str(uuid.uuid4()), order_id=order_id, key_id=key_id, actor=actor, recipient_jwk=b'{"kty":"EC"}'
    )


def link_of(wish: pb.RevealKeyRequest) -> pb.CreateDownloadLinkRequest:
    return pb.CreateDownloadLinkRequest(
        request_id=wish.request_id,
        order_id=wish.order_id,
        key_id=wish.key_id,
        actor=wish.actor,
        recipient_jwk=wish.recipient_jwk,
    )


async def test_an_order_is_submitted_once_and_its_repeat_is_answered_the_same(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    request = submitting(an_order("order-1", 2))
    first = await shop.SubmitOrder(request)
    assert first.fulfillment.state == fulfillment_pb2.STATE_AWAITING_PAYMENT
    assert first.fulfillment.lines[0].quantity == 2
    assert await shop.SubmitOrder(request) == first
    assert await shop.SubmitOrder(submitting(an_order("order-1", 2))) == first
    reused = pb.SubmitOrderRequest(request_id=request.request_id, order=an_order("order-2"))
    assert (await fails(shop.SubmitOrder(reused))).reason == "REQUEST_ID_REUSED"
    conflict = await fails(shop.SubmitOrder(submitting(an_order("order-1", 3))))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ORDER_CONFLICT")
    assert await system.states() == {"order-1": "AWAITING_PAYMENT"}


async def test_a_payment_may_come_before_its_order_and_only_once(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    request = pb.ConfirmPaymentRequest(request_id=str(uuid.uuid4()), payment=a_payment("order-1"))
    assert not (await shop.ConfirmPayment(request)).HasField("fulfillment")
    assert not (await shop.ConfirmPayment(request)).HasField("fulfillment")
    submitted = await shop.SubmitOrder(submitting(an_order("order-1")))
    assert submitted.fulfillment.state == fulfillment_pb2.STATE_PENDING
    again = pb.ConfirmPaymentRequest(request_id=str(uuid.uuid4()), payment=a_payment("order-1"))
    assert (await shop.ConfirmPayment(again)).fulfillment.order_id == "order-1"
    other = a_payment("order-2", payment_id="payment-of-order-1")
    reused = await fails(shop.ConfirmPayment(pb.ConfirmPaymentRequest(request_id=str(uuid.uuid4()), payment=other)))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PAYMENT_REUSED")
    await system.until("READY", "order-1")
    assert len(system.kinguin.sold) == 1


async def test_a_payment_that_does_not_match_is_for_a_human(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    answer = await shop.SubmitOrder(submitting(an_order("order-1"), a_payment("order-1", 1001)))
    assert (answer.fulfillment.state, answer.fulfillment.reason) == (
        fulfillment_pb2.STATE_NEEDS_ATTENTION,
        "PAYMENT_MISMATCH",
    )
    assert not system.kinguin.asked


async def test_faults_are_told_by_field_and_nothing_is_stored(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    order = an_order("order-1", -1)
    order.total.currency_code = "XYZ"
    order.items[0].product_id = ""
    error = await fails(shop.SubmitOrder(pb.SubmitOrderRequest(order=order, payment=a_payment("order-2"))))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert field_names(error) == [
        "request_id",
        "order.total.currency_code",
        "order.items[0].product_id",
        "order.items[0].quantity",
        "payment.order_id",
    ]
    bad = await fails(shop.ConfirmPayment(pb.ConfirmPaymentRequest(payment=a_payment("order-1", 0))))
    assert field_names(bad) == ["request_id", "payment.amount.minor_units"]
    assert await system.states() == {}
    assert await system.rows("TABLE payment") == []


async def test_a_product_that_nobody_sells_is_refused_before_it_is_paid(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    order = an_order("order-1")
    order.items.add().CopyFrom(order.items[0])
    order.items[1].item_id, order.items[1].product_id = "item-2", UNKNOWN_PRODUCT
    error = await fails(shop.SubmitOrder(submitting(order)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PRODUCT_UNKNOWN")
    assert field_names(error) == ["order.items[1].product_id"]
    assert await system.states() == {}


async def test_only_who_is_listed_may_call(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System, replica: Replica
) -> None:
    submit = await fails(edge.SubmitOrder(submitting(an_order("order-1"))))
    reveal = await fails(shop.RevealKey(wishing("key-1")))
    async with system.calling(replica, identity="vault") as vault:
        listing = await fails(vault.ListFulfillments(pb.ListFulfillmentsRequest()))
    assert {error.reason for error in (submit, reveal, listing)} == {"METHOD_NOT_ALLOWED"}


async def test_an_owner_opens_a_key_and_what_vault_says_passes_through(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System
) -> None:
    wish = wishing(await a_key_of(shop, system))
    assert (await edge.RevealKey(wish)).key_jwe == "key.jwe"
    link = await edge.CreateDownloadLink(link_of(wish))
    assert (link.url, link.content_key_jwe) == ("https://r2.example/keys/1?signed", "content.key.jwe")
    assert (link.object_sha256, link.expire_time.seconds) == (bytes(32), 1767312000)
    (revealed,), (linked,) = system.vault.reveals, system.vault.links
    for passed in (revealed, linked):
        assert (passed.request_id, passed.order_id, passed.key_id) == (wish.request_id, "order-1", wish.key_id)
        assert (passed.actor, passed.recipient_jwk) == (ALICE, wish.recipient_jwk)


async def test_nobody_else_opens_it_and_vault_is_not_even_asked(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System
) -> None:
    key_id = await a_key_of(shop, system)
    foreign = await fails(edge.RevealKey(wishing(key_id, BOB)))
    none = await fails(edge.CreateDownloadLink(link_of(wishing(key_id, BOB, "order-9"))))
    assert (foreign.reason, foreign.message) == (none.reason, none.message) == ("ORDER_NOT_FOUND", none.message)
    assert (await fails(edge.RevealKey(wishing("key-of-nobody")))).reason == "KEY_NOT_FOUND"
    assert field_names(await fails(edge.RevealKey(wishing(key_id, ADMIN)))) == ["actor.type"]
    assert not system.vault.reveals
    assert not system.vault.links
    facts = [AuditRecorded.FromString(data) for data in await system.told("audit.recorded")]
    denied = [(fact.actor.id, fact.details["method"]) for fact in facts if fact.action == "order.access_denied"]
    assert denied == [("bob", "RevealKey")]


@pytest.mark.parametrize("reason", ["KEY_NOT_READY", "LINK_EXPIRED"])
async def test_an_error_of_vault_keeps_its_reason(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System, reason: str
) -> None:
    key_id = await a_key_of(shop, system)
    system.vault.failing = [failed(reason), failed(reason)]
    wish = wishing(key_id)
    assert (await fails(edge.RevealKey(wish))).reason == reason
    assert (await fails(edge.CreateDownloadLink(link_of(wish)))).reason == reason


async def test_an_order_is_read_by_its_owner_staff_and_the_shop(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System
) -> None:
    await a_key_of(shop, system)
    asking = pb.GetFulfillmentRequest(order_id="order-1")
    for_shop = (await shop.GetFulfillment(asking)).fulfillment
    assert for_shop.lines[0].purchases[0].supplier_order_id.startswith("PHS-")
    for actor, purchases in ((ALICE, 0), (ADMIN, 1)):
        asked = pb.GetFulfillmentRequest(order_id="order-1", actor=actor)
        assert len((await edge.GetFulfillment(asked)).fulfillment.lines[0].purchases) == purchases
    foreign = await fails(edge.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-1", actor=BOB)))
    assert (foreign.code, foreign.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    assert field_names(await fails(edge.GetFulfillment(asking))) == ["actor"]
    nobody = pb.GetFulfillmentRequest(order_id="order-1", actor=actor_pb2.Actor(id="alice"))
    assert field_names(await fails(edge.GetFulfillment(nobody))) == ["actor"]
    assert field_names(await fails(shop.GetFulfillment(pb.GetFulfillmentRequest(order_id="a b")))) == ["order_id"]


async def test_lists_are_filtered_and_paged(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System
) -> None:
    await a_key_of(shop, system)
    for number, customer_id in ((2, "alice"), (3, "bob")):
        await shop.SubmitOrder(submitting(an_order(f"order-{number}", customer_id=customer_id)))

    async def listed(stub: "FulfillmentServiceAsyncStub", request: pb.ListFulfillmentsRequest) -> list[str]:
        return [found.order_id for found in (await stub.ListFulfillments(request)).fulfillments]

    assert await listed(shop, pb.ListFulfillmentsRequest()) == ["order-3", "order-2", "order-1"]
    assert await listed(shop, pb.ListFulfillmentsRequest(state=fulfillment_pb2.STATE_READY)) == ["order-1"]
    assert await listed(shop, pb.ListFulfillmentsRequest(customer_id="bob")) == ["order-3"]
    assert await listed(edge, pb.ListFulfillmentsRequest(actor=ALICE)) == ["order-2", "order-1"]
    assert await listed(edge, pb.ListFulfillmentsRequest(actor=ALICE, customer_id="bob")) == ["order-2", "order-1"]
    first = await shop.ListFulfillments(pb.ListFulfillmentsRequest(page_size=2))
    assert len(first.fulfillments) == 2
    rest = pb.ListFulfillmentsRequest(page_size=2, page_token=first.next_page_token)
    second = await shop.ListFulfillments(rest)
    assert [found.order_id for found in second.fulfillments] == ["order-1"]
    assert second.next_page_token == ""
    for bad, field in (
        (pb.ListFulfillmentsRequest(page_size=-1), "page_size"),
        (pb.ListFulfillmentsRequest(page_token="no token"), "page_token"),
        (pb.ListFulfillmentsRequest(customer_id="bob", page_token=first.next_page_token), "page_token"),
        (pb.ListFulfillmentsRequest(state=fulfillment_pb2.STATE_SHREDDING), "state"),
    ):
        assert field_names(await fails(shop.ListFulfillments(bad))) == [field]
    assert field_names(await fails(edge.ListFulfillments(pb.ListFulfillmentsRequest()))) == ["actor"]


async def test_a_stream_tells_every_step_and_ends_when_all_is_opened(
    shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub", system: System
) -> None:
    await shop.SubmitOrder(submitting(an_order("order-1")))
    seen: list[fulfillment_pb2.Fulfillment] = []
    began = asyncio.Event()

    async def watch() -> None:
        async for told in edge.WatchFulfillment(pb.WatchFulfillmentRequest(order_id="order-1", actor=ALICE)):
            seen.append(told.fulfillment)
            began.set()

    watching = asyncio.create_task(watch())
    await began.wait()
    await shop.ConfirmPayment(pb.ConfirmPaymentRequest(request_id=str(uuid.uuid4()), payment=a_payment("order-1")))
    await system.until_mailed("order-1")
    await system.open_keys("order-1")
    async with asyncio.timeout(10):
        await watching
    states = [fulfillment_pb2.State.Name(found.state) for found in seen]
    assert states[0] == "STATE_AWAITING_PAYMENT"
    assert states[-2:] == ["STATE_READY", "STATE_DELIVERED"]
    assert states == sorted(states, key=fulfillment_pb2.State.Value)
    assert not any(line.purchases for found in seen for line in found.lines)
    assert seen[-1].HasField("mail_time")
    assert seen[-1].lines[0].keys[0].HasField("open_time")


async def test_nobody_else_watches(shop: "FulfillmentServiceAsyncStub", edge: "FulfillmentServiceAsyncStub") -> None:
    await shop.SubmitOrder(submitting(an_order("order-1")))

    async def watch() -> None:
        async for _ in edge.WatchFulfillment(pb.WatchFulfillmentRequest(order_id="order-1", actor=BOB)):
            raise AssertionError("somebody else's order was shown")

    assert (await fails(watch())).reason == "ORDER_NOT_FOUND"


async def test_an_outage_of_the_supplier_stops_no_order_from_being_taken(
    shop: "FulfillmentServiceAsyncStub", system: System
) -> None:
    # More than the channel repeats by itself while the order is submitted.
    system.kinguin.reading = [unavailable() for _ in range(8)]
    system.kinguin.placing = [unavailable()]
    await shop.SubmitOrder(submitting(an_order("order-1"), a_payment("order-1")))
    await system.until("READY", "order-1")
