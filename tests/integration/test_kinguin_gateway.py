"""kinguin-gateway as it runs: two replicas, PostgreSQL, NATS, the supplier's simulator, and a vault that counts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.errors import RemoteError
from chassis.events import Event, new_event_id
from chassis.jetstream import Publisher, connect_nats
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged, KinguinWebhookReceived
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import money_pb2
from sandbox.pki import Identity
from sandbox.ports import free_port
from sandbox.servers.nats import NatsServer

from tests.integration.kinguin_gateway_system import (
    Replica,
    System,
    a_purchase,
    collect,
    collecting,
    fails,
    open_system,
    place,
    told,
)
from tests.integration.real_servers import (
    Postgres,
    eventually,
    fetch,
)
from tests.integration.supplier_simulator import (
    API_KEY,
    ARMADA,
    LANTERN,
)

if TYPE_CHECKING:
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub


@pytest.fixture(scope="module")
async def system(
    postgres: Postgres,
    nats_server: NatsServer,
    pki: Mapping[str, Identity],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[System]:
    async with open_system(tmp_path_factory.mktemp("kinguin-gateway"), postgres, nats_server, pki) as system:
        yield system


@pytest.fixture(scope="module")
def replicas(system: System) -> tuple[Replica, Replica]:
    pair = system.start(), system.start()
    for replica in pair:
        replica.process.wait_ready()
    return pair


@pytest.fixture
async def gateway(system: System, replicas: tuple[Replica, Replica]) -> AsyncIterator["KinguinServiceAsyncStub"]:
    system.simulator.behave()
    system.vault.fails_on = ""
    async with system.calling(*replicas) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _behave(system: System) -> Iterator[None]:
    yield
    system.simulator.behave()


async def test_an_order_is_placed_and_its_keys_go_to_vault(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    request = a_purchase()
    placed = (await gateway.PlaceOrder(request)).purchase
    assert (placed.state, placed.quantity) == (pb.PURCHASE_STATE_PLACED, 2)
    assert placed.charged_amount == money_pb2.Money(currency_code="EUR", minor_units=1498)
    assert placed.product_name.startswith("Lantern Hollow")
    assert placed.HasField("create_time")
    collected = await collect(gateway, request)
    (sold,) = system.simulator.sold(request.external_id)
    assert sold["order_id"] == placed.supplier_order_id
    assert sorted(key["serial"].encode() for key in sold["keys"]) == sorted(system.vault.plaintexts(request.order_id))
    assert collected.purchase.sealed_count == len({key.key_id for key in collected.keys}) == 2
    assert {(key.content_type, key.held) for key in collected.keys} == {("text/plain", False)}
    assert not collected.more_keys_ready
    calls = system.vault.calls
    again = await gateway.CollectKeys(collecting(request))
    assert (again.keys, system.vault.calls) == (collected.keys, calls)
    (sealed, _) = (one for one in system.vault.sealed.values() if one.order_id == request.order_id)
    assert (sealed.customer_id, sealed.item_id) == ("alice", "item-1")


async def test_the_same_again_is_the_same_and_something_else_is_a_conflict(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    request = a_purchase()
    answers = await asyncio.gather(*(place(gateway, request) for _ in range(6)))
    assert len({answer.supplier_order_id for answer in answers}) == 1
    assert len(system.simulator.sold(request.external_id)) == 1
    other = a_purchase(external_id=request.external_id)
    assert (await fails(gateway.PlaceOrder(other))).reason == "EXTERNAL_ID_CONFLICT"
    reused = a_purchase(request_id=request.request_id)
    assert (await fails(gateway.PlaceOrder(reused))).reason == "REQUEST_ID_REUSED"
    first = collecting(request)
    await gateway.CollectKeys(first)
    first.customer_id = "bob"
    assert (await fails(gateway.CollectKeys(first))).reason == "REQUEST_ID_REUSED"


async def test_a_lost_answer_is_in_doubt_until_the_order_is_found(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.misbehave("drop_answer", operation="placeOrder", count=1)
    system.simulator.misbehave("search_lag", seconds=0.8)
    system.simulator.misbehave("accept_duplicate_external_id")
    request = a_purchase()
    error = await fails(gateway.PlaceOrder(request))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "PURCHASE_IN_DOUBT")
    assert error.retry_after is not None
    shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
    assert (shown.state, shown.supplier_order_id) == (pb.PURCHASE_STATE_IN_DOUBT, "")
    assert (await fails(gateway.CollectKeys(collecting(request)))).reason == "PURCHASE_NOT_PLACED"
    placed = await place(gateway, request)
    (sold,) = system.simulator.sold(request.external_id)
    assert sold["order_id"] == placed.supplier_order_id
    actions = [
        AuditRecorded.FromString(data).action for data in await told(system, "audit.recorded", request.external_id)
    ]
    assert actions == ["purchase.in_doubt", "purchase.placed"]


async def test_a_doubt_is_settled_although_nobody_asks_again(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.misbehave("drop_answer", operation="placeOrder", count=1)
    system.simulator.misbehave("search_lag", seconds=0.8)
    request = a_purchase()
    await fails(gateway.PlaceOrder(request))

    async def is_told() -> bool:
        return bool(await told(system, "kinguin.order.changed", request.external_id))

    await eventually(is_told)
    assert len(system.simulator.sold(request.external_id)) == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "status", "status": 500, "when": "before"},
        {"action": "status", "status": 500, "when": "after"},
        {"action": "status", "status": 429, "when": "before", "retry_after": 1},
        {"action": "reset_before"},
        {"action": "lock"},
        {"action": "delay", "seconds": 2.2, "when": "before"},
        {"action": "delay", "seconds": 2.2, "when": "after"},
        {"action": "drop_answer"},
    ],
    ids=lambda rule: "-".join(str(value) for value in rule.values()),
)
async def test_whatever_goes_wrong_it_is_bought_once(
    gateway: "KinguinServiceAsyncStub", system: System, rule: dict[str, Any]
) -> None:
    # A delay of 2.2 s takes the order 0.7 s after we gave up: late, and still within the bound of 1 s.
    system.simulator.misbehave("accept_duplicate_external_id")
    system.simulator.misbehave(operation="placeOrder", count=1, **rule)
    requests = [a_purchase() for _ in range(2)]
    await asyncio.gather(*(place(gateway, request) for request in requests))
    for request in requests:
        assert len(system.simulator.sold(request.external_id)) == 1


async def test_a_refusal_is_told_in_the_suppliers_words(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    system.simulator.misbehave("out_of_stock", product_id=LANTERN)
    request = a_purchase()
    for _ in range(2):
        error = await fails(gateway.PlaceOrder(request))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PURCHASE_REFUSED")
        assert error.metadata["kind"] == "ProductUnavailable"
        assert error.metadata["detail"]
        assert error.metadata["trace"]
    (fact,) = await told(system, "audit.recorded", request.external_id)
    assert AuditRecorded.FromString(fact).action == "purchase.refused"


async def test_many_purchases_in_bad_weather_are_each_bought_once(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    for rule in (
        {"action": "drop_answer", "operation": "placeOrder", "probability": 0.3},
        {"action": "status", "status": 503, "probability": 0.15},
        {"action": "search_lag", "seconds": 0.7},
        {"action": "accept_duplicate_external_id"},
    ):
        system.simulator.misbehave(**rule)
    requests = [a_purchase(quantity=1) for _ in range(40)]
    await asyncio.gather(*(place(gateway, request) for request in requests))
    system.simulator.behave()
    await asyncio.gather(*(collect(gateway, request) for request in requests))
    for request in requests:
        (sold,) = system.simulator.sold(request.external_id)
        assert system.vault.plaintexts(request.order_id) == [key["serial"].encode() for key in sold["keys"]]


@pytest.mark.parametrize(
    "step", ["after_open_commit", "before_place_order", "after_place_order", "before_record_commit"]
)
async def test_a_replica_that_dies_while_it_buys_buys_nothing_twice(
    system: System, replicas: tuple[Replica, Replica], step: str
) -> None:
    system.simulator.misbehave("accept_duplicate_external_id")
    doomed = system.start(KEYFERRY_FAILPOINTS=f"kinguin_gateway.{step}=crash")
    doomed.process.wait_ready()
    request = a_purchase()
    async with system.calling(doomed) as stub:
        await fails(stub.PlaceOrder(request, timeout=2))
    async with system.calling(*replicas) as stub:
        placed = await place(stub, request)
    (sold,) = system.simulator.sold(request.external_id)
    assert sold["order_id"] == placed.supplier_order_id


async def test_an_unreachable_supplier_means_that_nothing_was_sent(system: System) -> None:
    cut_off = system.start(KINGUIN_BASE=f"http://127.0.0.1:{free_port()}/esa/api")
    cut_off.process.wait_ready()
    request = a_purchase()
    async with system.calling(cut_off) as stub:
        error = await fails(stub.PlaceOrder(request))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SUPPLIER_UNAVAILABLE")
        unknown = await fails(stub.GetOrder(pb.GetOrderRequest(external_id=request.external_id)))
        assert unknown.reason == "PURCHASE_UNKNOWN"
        check = await stub.CheckSupplier(pb.CheckSupplierRequest())
        assert (check.reachable, check.authorized, check.HasField("balance")) == (False, False, False)
        assert check.detail
    cut_off.process.stop()
    assert cut_off.process.exit_status == 0


async def test_a_wrong_key_is_told_apart_from_an_outage(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    stranger = system.start(KINGUIN_API_KEY="wrong", KINGUIN_AUTH="bearer")
    stranger.process.wait_ready()
    async with system.calling(stranger) as stub:
        check = await stub.CheckSupplier(pb.CheckSupplierRequest())
        assert (check.reachable, check.authorized) == (True, False)
        error = await fails(stub.GetProduct(pb.GetProductRequest(product_id=LANTERN)))
        assert error.reason == "SUPPLIER_UNAUTHORIZED"
        request = a_purchase()
        assert (await fails(stub.PlaceOrder(request))).reason == "BUYING_PAUSED"
        assert (await stub.CheckSupplier(pb.CheckSupplierRequest())).buying.cause == pb.PAUSE_CAUSE_UNAUTHORIZED
    stranger.process.stop()
    # A replica that is let in notices, and what was parked can be bought.
    assert (await place(gateway, request)).state == pb.PURCHASE_STATE_PLACED


async def test_a_product_is_shown_as_it_is_sold_now(gateway: "KinguinServiceAsyncStub") -> None:
    product = (await gateway.GetProduct(pb.GetProductRequest(product_id="65a0c1d2e3f405162738000b"))).product
    assert product.price == money_pb2.Money(currency_code="EUR", minor_units=1210)
    assert product.available_quantity == 2
    relay = (await gateway.GetProduct(pb.GetProductRequest(product_id="65a0c1d2e3f405162738000a"))).product
    assert "DE" in relay.excluded_countries
    assert relay.activation_details
    error = await fails(gateway.GetProduct(pb.GetProductRequest(product_id="65a0c1d2e3f40516273800ff")))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "PRODUCT_UNKNOWN")
    check = await gateway.CheckSupplier(pb.CheckSupplierRequest())
    assert (check.reachable, check.authorized, check.HasField("balance")) == (True, True, True)


async def test_partial_deliveries_are_told_by_polling_alone(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    system.simulator.misbehave("partial", keys=1, seconds=3)
    request = a_purchase(quantity=3)
    await place(gateway, request)

    async def one_is_told() -> bool:
        return bool(await told(system, "kinguin.order.changed", request.external_id))

    await eventually(one_is_told)
    first = await gateway.CollectKeys(collecting(request))
    assert len(first.keys) == 1
    assert first.purchase.supplier_order_state == pb.SUPPLIER_ORDER_STATE_PROCESSING

    async def all_are_told() -> bool:
        events = await told(system, "kinguin.order.changed", request.external_id)
        return any(KinguinOrderChanged.FromString(data).status == "completed" for data in events)

    await eventually(all_are_told)
    rest = await gateway.CollectKeys(collecting(request))
    assert [key.key_id for key in rest.keys][:1] == [first.keys[0].key_id]
    assert len(rest.keys) == 3
    finished = f"SELECT next_look_time FROM purchase WHERE external_id = '{request.external_id}'"  # noqa: S608 # our own

    async def is_finished() -> bool:
        (row,) = await fetch(system.database.superuser_url, finished)
        return row["next_look_time"] is None

    await eventually(is_finished)


async def test_pictures_are_sealed_as_pictures(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    request = a_purchase(product_id=ARMADA, quantity=1)
    await place(gateway, request)
    (key,) = (await collect(gateway, request)).keys
    assert key.content_type == "image/png"
    (picture,) = system.vault.plaintexts(request.order_id)
    assert picture.startswith(b"\x89PNG")


async def test_what_was_sealed_is_kept_when_another_key_is_not(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.plant(LANTERN, "GOOD-AAAA-BBBB")
    system.simulator.plant(LANTERN, "BAD-CCCC-DDDD")
    system.vault.fails_on = "BAD-"
    request = a_purchase(quantity=2)
    await place(gateway, request)

    async def both_are_there() -> bool:
        (sold,) = system.simulator.sold(request.external_id)
        return all(key["status"] == "DELIVERED" for key in sold["keys"])

    await eventually(both_are_there)
    for _ in range(2):
        partly = await gateway.CollectKeys(collecting(request))
        assert (len(partly.keys), partly.purchase.sealed_count, partly.unreadable_count) == (1, 1, 0)
    system.vault.fails_on = ""
    assert len((await collect(gateway, request)).keys) == 2


async def test_what_is_no_key_is_told_beside_the_good_keys_however_often_they_were_told(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.plant(LANTERN, "GOOD-EEEE-FFFF")
    system.simulator.plant(LANTERN, "", "image/png")
    request = a_purchase(quantity=2)
    await place(gateway, request)

    async def is_told() -> bool:
        return (await gateway.CollectKeys(collecting(request))).unreadable_count == 1

    await eventually(is_told)
    answer = await gateway.CollectKeys(collecting(request))
    assert len(answer.keys) == 1
    (unreadable,) = answer.unreadable_keys
    assert unreadable.source_ref.startswith(f"kinguin:{answer.purchase.supplier_order_id}:")
    assert system.vault.plaintexts(request.order_id) == [b"GOOD-EEEE-FFFF"]


async def test_a_webhook_makes_us_ask_now_and_a_lie_changes_nothing(system: System) -> None:
    patient = system.start(KEYFERRY_POLL_FIRST_SECONDS="3000", KEYFERRY_POLL_MAX_SECONDS="3000")
    patient.process.wait_ready()
    system.simulator.misbehave("hold")
    request = a_purchase(quantity=1)
    async with (
        system.calling(patient) as stub,
        connect_nats(system.nats_url, name="test") as client,
    ):
        placed = (await stub.PlaceOrder(request)).purchase

        async def send(*, supplier_order_id: str = "", external_id: str = "") -> None:
            message = KinguinWebhookReceived(
                event_name="order.status",
                supplier_order_id=supplier_order_id,
                external_id=external_id,
                status="completed",
            )
            event = Event.of(
                message,
                event_id=new_event_id(),
                subject="kinguin.webhook.received",
                source="edge",
                about="",
                time=datetime.now(UTC),
            )
            await Publisher(client).publish_event(event)

        async def looks() -> int:
            statement = f"SELECT revision FROM purchase WHERE external_id = '{request.external_id}'"  # noqa: S608 # our own
            (row,) = await fetch(system.database.superuser_url, statement)
            return int(row["revision"])

        async def looked(times: int) -> bool:
            return await looks() >= times

        await send(supplier_order_id=placed.supplier_order_id)
        await eventually(partial(looked, 1))
        assert await told(system, "kinguin.order.changed", request.external_id) == []
        system.simulator.release()
        await send(external_id=request.external_id)
        await eventually(partial(looked, 2))
        (data,) = await told(system, "kinguin.order.changed", request.external_id)
        assert KinguinOrderChanged.FromString(data).supplier_order_id == placed.supplier_order_id
        before = await looks()
        await send(supplier_order_id="PHSUNKNOWN", external_id="kf-unknown")
        assert await looks() == before
    patient.process.stop()


async def test_only_those_who_may_call_may_call(system: System, replicas: tuple[Replica, Replica]) -> None:
    allowed_to = {"shop": {"GetOrder", "GetProduct"}, "edge": {"GetProduct", "CheckSupplier"}, "vault": set()}
    for identity, allowed in allowed_to.items():
        async with system.calling(replicas[0], identity=identity) as stub:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "PlaceOrder": partial(stub.PlaceOrder, pb.PlaceOrderRequest()),
                "GetOrder": partial(stub.GetOrder, pb.GetOrderRequest()),
                "CollectKeys": partial(stub.CollectKeys, pb.CollectKeysRequest()),
                "GetProduct": partial(stub.GetProduct, pb.GetProductRequest(product_id=LANTERN)),
                "CheckSupplier": partial(stub.CheckSupplier, pb.CheckSupplierRequest()),
            }
            for name, call in calls.items():
                try:
                    await call()
                    code = grpc.StatusCode.OK
                except RemoteError as error:
                    code = error.code
                assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (name in allowed), (identity, name)


async def test_what_is_wrong_is_told_by_field_and_nothing_is_stored(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    request = a_purchase(
        external_id="no spaces",
        quantity=-1,
        max_unit_price=money_pb2.Money(currency_code="XYZ", minor_units=1),
        request_id="7",
    )
    error = await fails(gateway.PlaceOrder(request))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {fault.field for fault in error.field_violations} == {
        "external_id",
        "quantity",
        "max_unit_price.currency_code",
        "request_id",
    }
    statement = "SELECT 1 FROM purchase WHERE external_id = 'no spaces'"
    assert await fetch(system.database.superuser_url, statement) == []
    unknown = pb.GetOrderRequest(external_id="kf-never")
    assert (await fails(gateway.GetOrder(unknown))).reason == "PURCHASE_UNKNOWN"


async def test_a_key_is_in_no_log_and_in_no_table(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    planted = "PLANT-EDKEY-01234"
    system.simulator.plant(LANTERN, planted)
    request = a_purchase(quantity=1)
    await place(gateway, request)
    await collect(gateway, request)
    assert system.vault.plaintexts(request.order_id) == [planted.encode()]
    tables = ("purchase", "sealed_key", "outbox", "inbox", "request_log", "dead_letter")
    dump = ""
    for table in tables:
        rows = await fetch(system.database.superuser_url, f"SELECT t::text AS whole FROM {table} t")  # noqa: S608 # our own
        dump += "".join(row["whole"] for row in rows)
    for where in (system.logs(), dump):
        assert where
        for form in (planted, planted.encode().hex(), "UExBTlQtRURLRVktMDEyMzQ"):
            assert form not in where
        assert API_KEY not in where
