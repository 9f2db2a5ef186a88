"""A customer pays, opens a key and is forgotten: nobody who kept anything of them knows them any more."""

import asyncpg
import httpx
import pytest
from keyferry.audit.v1 import audit_service_pb2 as audit_pb
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import FulfillmentAdminServiceStub
from sandbox.customer import Refused
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.staff import ADMIN, channel, request_id
from tests.e2e.system import System, keys_of

CUSTOMER = "forgotten-fiona"
PRODUCT = PRODUCTS[0].product_id


async def naming(system: System, database: str, text: str) -> list[str]:
    """Return every row of a database that holds a text, as its table's name and what it looks like."""
    found = []
    connection = await asyncpg.connect(f"{system.endpoints['database'].rpartition('/')[0]}/{database}")
    try:
        for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            rows = await connection.fetch(f'SELECT row::text FROM "{table}" AS row')  # noqa: S608 # a table's name
            found += [f"{table}: {row}" for (row,) in rows if text in row or text.encode().hex() in row]
    finally:
        await connection.close()
    return found


async def test_who_was_forgotten_is_known_to_nobody_and_the_log_is_sound(
    system: System, http: httpx.AsyncClient
) -> None:
    order_id = await system.pay(CUSTOMER, Purchase(PRODUCT))
    (key_id,) = keys_of(await system.until(http, CUSTOMER, order_id, "READY"))
    await system.customer(http, CUSTOMER).open_key(order_id, key_id)
    await system.until(http, CUSTOMER, order_id, "DELIVERED")
    await system.until_true(lambda: system.mails(http, order_id))
    email = (await system.fulfillment(order_id)).customer.email
    assert await naming(system, "fulfillment", email)

    async with channel(system, "fulfillment", peer="fulfillment") as opened:
        staff = FulfillmentAdminServiceStub(opened)
        log = await staff.GetDeliveryLog(pb.GetDeliveryLogRequest(order_id=order_id, key_id=key_id))
        done = [pb.DeliveryAct.Name(delivery.act) for delivery in log.deliveries]
        assert done == ["DELIVERY_ACT_STORED", "DELIVERY_ACT_LINK_ISSUED"]
        assert log.link_count == 1
        request = pb.EraseCustomerRequest(
            request_id=request_id(), customer_id=CUSTOMER, actor=ADMIN, reason="asked for it"
        )
        answer = await staff.EraseCustomer(request)
        assert (answer.order_count, answer.shredded_key_count) == (1, 1)
        assert await staff.EraseCustomer(request) == answer
        log = await staff.GetDeliveryLog(pb.GetDeliveryLogRequest(order_id=order_id, key_id=key_id))
        assert log.deliveries[-1].act == pb.DELIVERY_ACT_SHREDDED
        assert {(delivery.network, delivery.device) for delivery in log.deliveries} == {("", "")}

    for database in ("fulfillment", "vault"):
        assert await naming(system, database, email) == []
        # Whom audit is told of, and has to forget, stands in the outbox for as long as events are kept.
        left = {line.partition(":")[0] for line in await naming(system, database, CUSTOMER)}
        assert left <= {"outbox"}

    async def is_forgotten() -> bool:
        return any(entry.request_id == request.request_id for entry in await system.actions("", "customer.erased"))

    await system.until_true(is_forgotten)
    opener = {entry.actor.id for entry in await system.actions(order_id, "key.link_authorized")}
    assert len(opener) == 1
    assert opener.isdisjoint({CUSTOMER})
    assert CUSTOMER not in str(await system.audit_entries())
    async with channel(system, "audit", peer="audit") as opened:
        walk = [each async for each in AuditServiceStub(opened).VerifyLog(audit_pb.VerifyLogRequest())]
    assert walk[-1].verdict.finding == audit_pb.LogVerdict.FINDING_SOUND
    # Last, because who comes back stands in the log again, as a new person.
    with pytest.raises(Refused, match="404 ORDER_NOT_FOUND"):
        await system.customer(http, CUSTOMER).read_order(order_id)
