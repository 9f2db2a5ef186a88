"""Who was forgotten is in no row of fulfillment's database any more; what the books need is."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.tls import TlsFiles
from keyferry.events.v1.audit_events_pb2 import AuditCustomerErased
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as admin_pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import FulfillmentAdminServiceStub
from keyferry.type.v1 import actor_pb2
from sandbox.pki import Identity
from sandbox.servers.nats import NatsServer

from tests.integration.fulfillment_system import ALICE, BOB, Replica, System, a_payment, an_order, submitting
from tests.integration.real_servers import Postgres, eventually, fresh_streams

CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
EMAIL = "alice@example.com"


@pytest.fixture
async def system(
    postgres: Postgres, nats_server: NatsServer, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    nats_url = await fresh_streams(nats_server)
    async with System.opened(postgres, nats_url, pki, tmp_path) as system:
        yield system


@asynccontextmanager
async def staff(system: System, replica: Replica) -> AsyncIterator[Any]:
    tls = TlsFiles(system.pki["edge"].folder)
    async with open_channel([replica.address], peer="fulfillment", tls=tls) as channel:
        yield FulfillmentAdminServiceStub(channel)


def erasing(**changes: Any) -> admin_pb.EraseCustomerRequest:
    request_id = str(uuid.uuid4())
    fields = {"request_id": request_id, "customer_id": "alice", "actor": CAROL, "reason": "asked for it", **changes}
    return admin_pb.EraseCustomerRequest(**fields)


async def naming(system: System, text: str) -> list[str]:
    """Return every row of every table that holds a text, as its table's name and what it looks like."""
    needles = (text, text.encode().hex())
    found = []
    tables = await system.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    for (table,) in tables:
        rows = await system.rows(f'SELECT row::text FROM "{table}" AS row')  # noqa: S608 # a table's name
        found += [f"{table}: {row[0]}" for row in rows if any(needle in row[0] for needle in needles)]
    return found


async def live(system: System, replica: Replica) -> None:
    """Let alice buy, open, ask for somebody's order and have everything go wrong that writes her name down."""
    await system.pay("order-1")
    await system.until_mailed("order-1")
    await system.open_keys("order-1")
    await system.until("DELIVERED", "order-1")
    async with system.calling(replica) as shop, system.calling(replica, identity="edge") as edge:
        await shop.SubmitOrder(submitting(an_order("order-2")))
        await shop.SubmitOrder(submitting(an_order("order-of-bob", customer_id="bob")))
        with pytest.raises(RemoteError):
            await edge.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-of-bob", actor=ALICE))
    # Known with another amount: it can never be taken.
    other = PaymentConfirmed(payment=a_payment("order-1", 999), order=an_order("order-1"))
    await system.publish("payments.confirmed", other)

    async def is_buried() -> bool:
        return bool(await system.rows("SELECT 1 FROM dead_letter"))

    await eventually(is_buried)
    await system.rows("UPDATE mail SET failure = '550 no such user <alice@example.com>' RETURNING order_id")
    await system.rows(
        """
        INSERT INTO access_notice (key_id, day, order_id, access_time, news, failure)
        SELECT key_id, current_date, order_id, now(), '{DEVICE}', '550 alice@example.com' FROM order_key
        RETURNING key_id
        """
    )


async def test_who_was_forgotten_is_in_no_row_and_the_books_are_as_before(system: System) -> None:
    async with system.inside() as replica, staff(system, replica) as admin:
        await live(system, replica)
        books = "SELECT provider, payment_id, order_id, currency, minor FROM payment ORDER BY 1, 2"
        before = await system.rows(books)
        tables = {line.partition(":")[0] for line in await naming(system, "alice")}
        assert tables >= {"customer_order", "purchase", "mail", "access_notice", "outbox", "dead_letter", "request_log"}

        system.vault.failing = [
            RemoteError("away", code=grpc.StatusCode.UNAVAILABLE, reason="SERVICE_UNAVAILABLE")
        ] * 99
        request = erasing()
        with pytest.raises(RemoteError) as raised:
            await admin.EraseCustomer(request)
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        system.vault.failing = []
        answer = await admin.EraseCustomer(request)
        assert (answer.order_count, answer.kept_order_count, answer.shredded_key_count) == (2, 0, 1)
        assert await admin.EraseCustomer(request) == answer
        assert len(system.vault.erasures) == 1

        assert await naming(system, EMAIL) == []
        # Whom audit has to forget stands in what it is told, for as long as events are kept.
        (told,) = await system.told("audit.customer_erased")
        assert AuditCustomerErased.FromString(told).customer_id == "alice"
        left = [line for line in await naming(system, "alice") if "audit.customer_erased" not in line]
        assert left == []
        assert await system.rows(books) == before
        orders = await system.rows("SELECT order_id, customer_id, state FROM customer_order ORDER BY order_id")
        assert [tuple(row) for row in orders] == [
            ("order-1", answer.pseudonym, "DELIVERED"),
            ("order-2", answer.pseudonym, "CANCELED"),
            ("order-of-bob", "bob", "AWAITING_PAYMENT"),
        ]
        assert await naming(system, "bob@example.com")


async def test_an_order_under_way_is_named_and_other_orders_are_read_as_before(system: System) -> None:
    async with (
        system.inside() as replica,
        staff(system, replica) as admin,
        system.calling(replica) as shop,
        system.calling(replica, identity="edge") as edge,
    ):
        await shop.SubmitOrder(submitting(an_order("order-1"), a_payment("order-1", 400)))
        await shop.SubmitOrder(submitting(an_order("order-of-bob", customer_id="bob")))
        with pytest.raises(RemoteError) as raised:
            await admin.EraseCustomer(erasing())
        assert raised.value.reason == "CUSTOMER_NOT_SETTLED"
        assert raised.value.metadata["order_ids"] == "order-1"
        assert system.vault.erasures == []
        assert (await admin.EraseCustomer(erasing(customer_id="bob"))).order_count == 1
        with pytest.raises(RemoteError) as raised:
            await edge.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-of-bob", actor=BOB))
        assert raised.value.reason == "ORDER_NOT_FOUND"
        own = await edge.GetFulfillment(pb.GetFulfillmentRequest(order_id="order-1", actor=ALICE))
        assert own.fulfillment.customer.email == EMAIL
