"""kinguin-gateway as it runs, beyond buying and collecting: what operators and other services ask of it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from chassis.events import Event, new_event_id
from chassis.jetstream import Publisher, connect_nats
from keyferry.events.v1.kinguin_events_pb2 import (
    KinguinProductChanged,
    KinguinPurchaseReleased,
    KinguinWebhookReceived,
)
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2, money_pb2
from sandbox.pki import Identity
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
from tests.integration.real_servers import Postgres, eventually, fetch
from tests.integration.supplier_simulator import LANTERN

if TYPE_CHECKING:
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub

BULK, BULK_OFFER = "65a0c1d2e3f4051627380008", "65b0c1d2e3f4051627380008"
PREORDER = "65a0c1d2e3f4051627380007"
RELAY = "65a0c1d2e3f405162738000a"
ADMIN = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def system(
    postgres: Postgres,
    nats_server: NatsServer,
    pki: Mapping[str, Identity],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[System]:
    async with open_system(tmp_path_factory.mktemp("kinguin-operations"), postgres, nats_server, pki) as system:
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
    async with system.calling(*replicas) as stub:
        yield stub


@pytest.fixture
async def console(system: System, replicas: tuple[Replica, Replica]) -> AsyncIterator["KinguinServiceAsyncStub"]:
    async with system.calling(*replicas, identity="edge") as stub:
        yield stub


@pytest.fixture(autouse=True)
def _behave(system: System) -> Iterator[None]:
    yield
    system.simulator.behave()
    system.simulator.set_balance("1000000.00")


def a_request() -> str:
    return str(uuid.uuid4())


def pausing(reason: str = "stock-taking") -> pb.PauseBuyingRequest:
    return pb.PauseBuyingRequest(request_id=a_request(), actor=ADMIN, reason=reason)


def resuming() -> pb.ResumeBuyingRequest:
    return pb.ResumeBuyingRequest(request_id=a_request(), actor=ADMIN, reason="done")


async def audited(system: System, action: str) -> list[str]:
    statement = "SELECT headers FROM outbox WHERE subject = 'audit.recorded' ORDER BY position"
    rows = await fetch(system.database.superuser_url, statement)
    return [row["headers"] for row in rows if action in row["headers"]]


async def test_an_operator_pauses_and_resumes_and_both_are_audited(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    request = pausing()
    paused = (await console.PauseBuying(request)).buying
    assert (paused.paused, paused.cause, paused.reason) == (True, pb.PAUSE_CAUSE_OPERATOR, "stock-taking")
    waiting = [a_purchase(order_id="order-in-line") for _ in range(3)]
    for each in waiting:
        assert (await fails(gateway.PlaceOrder(each))).reason == "BUYING_PAUSED"
    listed = (await console.ListPurchases(pb.ListPurchasesRequest(order_id="order-in-line", parked=True))).purchases
    assert [each.external_id for each in listed] == [each.external_id for each in waiting]
    assert {(each.state, each.parked) for each in listed} == {(pb.PURCHASE_STATE_INTENDED, True)}
    status = (await console.CheckSupplier(pb.CheckSupplierRequest())).buying
    assert (status.parked_count, status.paused) == (3, True)
    await console.ResumeBuying(resuming())

    async def is_released() -> bool:
        return len(await told(system, "kinguin.purchase.released", "")) >= 3

    await eventually(is_released)
    events = [KinguinPurchaseReleased.FromString(data) for data in await told(system, "kinguin.purchase.released", "")]
    assert [event.external_id for event in events[-3:]] == [each.external_id for each in waiting]
    for each in waiting:
        assert (await place(gateway, each)).state == pb.PURCHASE_STATE_PLACED
    # The same request again changes nothing: it was answered long ago.
    assert not (await console.PauseBuying(request)).buying.paused
    assert len(await audited(system, "buying.paused")) == 1
    assert (await fails(console.PauseBuying(pb.PauseBuyingRequest()))).reason == "INVALID_REQUEST"


async def test_without_money_purchases_wait_and_are_bought_in_their_order(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.set_balance("1.00")
    requests = [a_purchase(quantity=1) for _ in range(4)]
    for each in requests:
        assert (await fails(gateway.PlaceOrder(each))).reason == "BUYING_PAUSED"
    status = (await console.CheckSupplier(pb.CheckSupplierRequest())).buying
    assert (status.cause, status.parked_count) == (pb.PAUSE_CAUSE_INSUFFICIENT_BALANCE, 4)
    # Enough for two at the most that each may cost.
    system.simulator.set_balance("26.00")

    async def two_are_free() -> bool:
        return (await console.CheckSupplier(pb.CheckSupplierRequest())).buying.parked_count == 2

    await eventually(two_are_free)
    assert (await fails(gateway.PlaceOrder(requests[2]))).reason == "BUYING_PAUSED"
    for each in requests[:2]:
        await place(gateway, each)
    system.simulator.set_balance("1000.00")
    for each in requests[2:]:
        await place(gateway, each)
    sold = [order["external_id"] for order in system.simulator.sold()]
    assert [external_id for external_id in sold if external_id in {each.external_id for each in requests}] == [
        each.external_id for each in requests
    ]
    assert not (await console.CheckSupplier(pb.CheckSupplierRequest())).buying.paused


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"product_id": RELAY, "country_code": "DE"}, "country_excluded"),
        (
            {"product_id": PREORDER, "max_unit_price": money_pb2.Money(currency_code="EUR", minor_units=9999)},
            "preorder_rules",
        ),
        ({"max_unit_price": money_pb2.Money(currency_code="EUR", minor_units=700)}, "price_above_limit"),
        ({"quantity": 10, "offer_id": "65b0c1d2e3f4051627380001"}, "not_wholesale"),
        ({"product_id": "65a0c1d2e3f405162738000b", "quantity": 3}, "out_of_stock"),
        ({"product_id": "65a0c1d2e3f40516273800ff"}, "product_unknown"),
    ],
)
async def test_what_the_rules_exclude_never_leaves_us(
    gateway: "KinguinServiceAsyncStub", system: System, changes: dict[str, Any], kind: str
) -> None:
    request = a_purchase(**changes)
    for _ in range(2):
        error = await fails(gateway.PlaceOrder(request))
        assert (error.reason, error.metadata["kind"]) == ("PURCHASE_REFUSED", kind)
    assert system.simulator.sold(request.external_id) == []
    shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
    assert (shown.state, shown.refusal.kind) == (pb.PURCHASE_STATE_REFUSED, kind)


async def test_k28_k32_a_thousand_keys_are_bought_and_sealed(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    request = a_purchase(
        product_id=BULK,
        offer_id=BULK_OFFER,
        quantity=1000,
        max_unit_price=money_pb2.Money(currency_code="EUR", minor_units=400),
    )
    placed = await place(gateway, request)
    assert placed.charged_amount.minor_units == 1000 * 320
    pages = system.simulator.asked("listKeys")
    collected = await collect(gateway, request)
    assert len({key.key_id for key in collected.keys}) == 1000
    assert len(set(system.vault.plaintexts(request.order_id))) == 1000
    # A page for each hundred, and not much more: none is read again for keys that are sealed already.
    assert system.simulator.asked("listKeys") - pages <= 14
    assert not collected.more_keys_ready


async def test_k51_k52_keys_are_given_back(gateway: "KinguinServiceAsyncStub", system: System) -> None:
    request = a_purchase()
    placed = await place(gateway, request)
    await collect(gateway, request)
    giving = pb.ReturnKeysRequest(request_id=a_request(), external_id=request.external_id)
    first = (await gateway.ReturnKeys(giving)).key_return
    assert first.supplier_order_id == placed.supplier_order_id
    assert first.state in {pb.KEY_RETURN_STATE_ACCEPTED, pb.KEY_RETURN_STATE_RETURNED}

    async def is_paid_back() -> bool:
        return (await gateway.ReturnKeys(giving)).key_return.state == pb.KEY_RETURN_STATE_REFUNDED

    await eventually(is_paid_back)
    shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
    assert (shown.key_return.returned_count, shown.key_return.refunded_count) == (2, 2)

    async def keys_say_so() -> bool:
        keys = (await gateway.CollectKeys(collecting(request))).keys
        return {key.state for key in keys} == {pb.SUPPLIER_KEY_STATE_REFUNDED}

    await eventually(keys_say_so)
    assert len(await audited(system, request.external_id)) >= 2


async def test_k24_of_two_orders_the_younger_is_given_back_by_itself(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.misbehave("accept_duplicate_external_id")
    system.simulator.misbehave("drop_answer", operation="placeOrder", count=1)
    system.simulator.misbehave("search_lag", seconds=0.8)
    request = a_purchase()
    assert (await fails(gateway.PlaceOrder(request))).reason == "PURCHASE_IN_DOUBT"
    # Somebody else, outside all guards, buys under the same reference.
    system.simulator.buy(request.external_id, LANTERN, 2, "12.99")
    placed = await place(gateway, request)
    first, second = system.simulator.sold(request.external_id)
    assert placed.supplier_order_id == first["order_id"]

    async def is_given_back() -> bool:
        statuses = {key["status"] for key in system.simulator.sold(request.external_id)[1]["keys"]}
        return statuses == {"REFUNDED"}

    await eventually(is_given_back)
    shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
    assert list(shown.surplus_order_ids) == [second["order_id"]]
    assert {key["status"] for key in system.simulator.sold(request.external_id)[0]["keys"]} == {"DELIVERED"}
    await collect(gateway, request)
    assert len(system.vault.plaintexts(request.order_id)) == 2


async def test_an_order_that_nobody_noticed_is_given_back_on_demand_and_never_the_one_that_is_kept(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    """Bought once more long after our own was placed: nothing searches for it again until somebody asks."""
    system.simulator.misbehave("accept_duplicate_external_id")
    request = a_purchase()
    placed = await place(gateway, request)
    await collect(gateway, request)
    system.simulator.buy(request.external_id, LANTERN, 2, "12.99")
    own, other = system.simulator.sold(request.external_id)
    assert placed.supplier_order_id == own["order_id"]
    giving = pb.ReturnKeysRequest(
        request_id=a_request(), external_id=request.external_id, supplier_order_id=other["order_id"]
    )

    async def is_paid_back() -> bool:
        return (await gateway.ReturnKeys(giving)).key_return.state == pb.KEY_RETURN_STATE_REFUNDED

    await eventually(is_paid_back)
    kept, gone = ({key["status"] for key in order["keys"]} for order in system.simulator.sold(request.external_id))
    assert (kept, gone) == ({"DELIVERED"}, {"REFUNDED"})
    shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
    assert (list(shown.surplus_order_ids), shown.HasField("key_return")) == ([other["order_id"]], False)
    giving.request_id, giving.supplier_order_id = a_request(), "PHS-of-nobody"
    assert (await fails(gateway.ReturnKeys(giving))).reason == "PURCHASE_UNKNOWN"


async def test_the_suppliers_orders_are_streamed_newest_first(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    requests = [a_purchase(product_id="65a0c1d2e3f4051627380003", max_unit_price=None) for _ in range(3)]
    for each in requests:
        each.max_unit_price.CopyFrom(money_pb2.Money(currency_code="EUR", minor_units=1500))
        await place(gateway, each)
    wanted = pb.SearchOrdersRequest(product_id="65a0c1d2e3f4051627380003")
    found = [answer.order async for answer in gateway.SearchOrders(wanted)]
    assert [order.external_id for order in found] == [each.external_id for each in reversed(requests)]
    assert found[0].charged_amount.minor_units == 2380
    assert len(found[0].lines[0].keys) == 2
    by_id = pb.SearchOrdersRequest(external_id=requests[1].external_id)
    assert [answer.order.supplier_order_id async for answer in gateway.SearchOrders(by_id)] == [
        found[1].supplier_order_id
    ]
    late = pb.SearchOrdersRequest()
    late.start_time.FromDatetime(datetime.now(UTC) + DAY)
    assert [answer async for answer in gateway.SearchOrders(late)] == []
    assert system.simulator.sold()


async def test_two_replicas_that_are_asked_at_once_and_again_later_buy_once(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    """So does a fulfillment whose database was restored: it derives the same ids and asks for all of it again."""
    system.simulator.misbehave("accept_duplicate_external_id")
    request = a_purchase(order_id="order-asked-often")
    placed = await asyncio.gather(*(place(gateway, request) for _ in range(20)))
    assert len({each.supplier_order_id for each in placed}) == 1
    keys = [key.key_id for key in (await collect(gateway, request)).keys]
    assert (await place(gateway, request)).supplier_order_id == placed[0].supplier_order_id
    assert [key.key_id for key in (await collect(gateway, request)).keys] == keys
    (listed,) = (await console.ListPurchases(pb.ListPurchasesRequest(order_id=request.order_id))).purchases
    assert (listed.external_id, listed.sealed_count) == (request.external_id, request.quantity)
    assert len(system.simulator.sold(request.external_id)) == 1


async def test_pages_of_purchases_follow_one_another(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub"
) -> None:
    order_id = f"order-{uuid.uuid4()}"
    requests = [a_purchase(order_id=order_id, quantity=1) for _ in range(5)]
    for each in requests:
        await place(gateway, each)
    seen, token = [], ""
    while True:
        request = pb.ListPurchasesRequest(order_id=order_id, page_size=2, page_token=token)
        page = await console.ListPurchases(request)
        seen += [purchase.external_id for purchase in page.purchases]
        token = page.next_page_token
        if not token:
            break
    assert seen == [each.external_id for each in requests]
    foreign = pb.ListPurchasesRequest(order_id=order_id, page_token="x")
    assert (await fails(console.ListPurchases(foreign))).reason == "INVALID_REQUEST"


async def test_the_balance_is_read_and_top_ups_are_kept_once(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    await place(gateway, a_purchase())
    system.simulator.set_balance("12.45")
    balance = await console.GetBalance(pb.GetBalanceRequest())
    assert balance.balance.minor_units == 1245
    assert balance.daily_charge.minor_units > 0
    assert balance.days_left == pytest.approx(1245 / balance.daily_charge.minor_units)
    assert balance.low
    system.simulator.misbehave("status", operation="getBalance", status=503)
    assert (await console.GetBalance(pb.GetBalanceRequest())).balance.minor_units == 1245
    top_up = pb.RecordTopUpRequest(
        request_id=a_request(),
        actor=ADMIN,
        amount=money_pb2.Money(currency_code="EUR", minor_units=500_00),
        reference="bank transfer 4711",
    )
    top_up.top_up_time.FromDatetime(datetime.now(UTC))
    first = await console.RecordTopUp(top_up)
    assert (await console.RecordTopUp(top_up)).top_up_id == first.top_up_id
    rows = await fetch(system.database.superuser_url, "SELECT amount_cents, reference FROM top_up")
    assert [tuple(row) for row in rows] == [(500_00, "bank transfer 4711")]
    top_up.amount.minor_units = 1
    assert (await fails(console.RecordTopUp(top_up))).reason == "REQUEST_ID_REUSED"


async def publish(system: System, **fields: Any) -> None:
    body = KinguinWebhookReceived(**fields)
    body.receive_time.FromDatetime(datetime.now(UTC))
    event = Event.of(
        body,
        event_id=new_event_id(),
        subject="kinguin.webhook.received",
        source="edge",
        about="",
        time=datetime.now(UTC),
    )
    async with connect_nats(system.nats_url, name="test") as client:
        await Publisher(client).publish_event(event)


async def test_webhooks_are_kept_listed_and_replayed(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    request = a_purchase()
    placed = await place(gateway, request)
    number = placed.supplier_order_id
    later = {"event_name": "order.status", "supplier_order_id": number, "status": "completed"}
    await publish(system, updated_at="2026-10-16T11:24:09.025+00:00", **later)
    wanted = pb.ListWebhooksRequest(supplier_order_id=number)
    unrelated = pb.ListWebhooksRequest(outcome=pb.WEBHOOK_OUTCOME_UNRELATED, page_size=1)

    async def kept(count: int, wanted: pb.ListWebhooksRequest = wanted) -> bool:
        return len((await console.ListWebhooks(wanted)).webhooks) == count

    await eventually(lambda: kept(1))
    await publish(system, updated_at="2026-10-16T11:24:08.025+00:00", **{**later, "status": "processing"})
    await publish(system, event_name="order.complete", supplier_order_id="PHSNOBODYS", updated_at="2026-10-16")
    await eventually(lambda: kept(2))
    await eventually(lambda: kept(1, unrelated))
    outcomes = [webhook.outcome for webhook in (await console.ListWebhooks(wanted)).webhooks]
    assert outcomes == [pb.WEBHOOK_OUTCOME_STALE, pb.WEBHOOK_OUTCOME_HURRIED]
    stale = (await console.ListWebhooks(wanted)).webhooks[0]
    replay = pb.ReplayWebhookRequest(request_id=a_request(), actor=ADMIN, webhook_id=stale.webhook_id)
    for _ in range(2):
        again = (await console.ReplayWebhook(replay)).webhook
        assert (again.outcome, again.HasField("replay_time")) == (pb.WEBHOOK_OUTCOME_HURRIED, True)
    assert len(await audited(system, "webhook.replayed")) == 1
    replay.request_id, replay.webhook_id = a_request(), a_request()
    assert (await fails(console.ReplayWebhook(replay))).reason == "WEBHOOK_UNKNOWN"
    assert [webhook.supplier_order_id for webhook in (await console.ListWebhooks(unrelated)).webhooks] == ["PHSNOBODYS"]
    assert (await console.CheckSupplier(pb.CheckSupplierRequest())).HasField("last_webhook_time")


async def test_k61_a_flood_about_products_that_were_never_bought_leaves_no_row(system: System, gateway: Any) -> None:
    before = await fetch(
        system.database.superuser_url, "SELECT (SELECT count(*) FROM inbox), (SELECT count(*) FROM webhook)"
    )
    async with connect_nats(system.nats_url, name="test") as client:
        publisher = Publisher(client)
        for number in range(2000):
            body = KinguinWebhookReceived(event_name="product.update", product_id=f"never-{number}")
            await publisher.publish_event(
                Event.of(
                    body,
                    event_id=new_event_id(),
                    subject="kinguin.webhook.received",
                    source="edge",
                    about="",
                    time=datetime.now(UTC),
                )
            )
        info = client.jetstream()

        async def is_taken() -> bool:
            consumer = await info.consumer_info("KINGUIN", "kinguin-gateway-webhooks")
            return not consumer.num_pending and not consumer.num_ack_pending

        await eventually(is_taken)
    after = await fetch(
        system.database.superuser_url, "SELECT (SELECT count(*) FROM inbox), (SELECT count(*) FROM webhook)"
    )
    assert [tuple(row) for row in before] == [tuple(row) for row in after]
    assert gateway is not None


async def test_k16_a_bought_product_whose_price_changes_is_told(
    gateway: "KinguinServiceAsyncStub", system: System, replicas: tuple[Replica, Replica]
) -> None:
    await place(gateway, a_purchase())
    # A replica that starts knows every product that was bought.
    late = system.start()
    late.process.wait_ready()
    replicas[0].process.stop()
    replicas[1].process.stop()

    async def is_read() -> bool:
        statement = f"SELECT 1 FROM product WHERE product_id = '{LANTERN}' AND read_time IS NOT NULL"  # noqa: S608 # ours
        return bool(await fetch(system.database.superuser_url, statement))

    await eventually(is_read)
    system.simulator.set_price("65b0c1d2e3f4051627380001", "6.99")
    await publish(system, event_name="product.update", product_id=LANTERN, updated_at="2026-10-16T11:24:09.025+00:00")

    async def is_told() -> bool:
        return bool(await told(system, "kinguin.product.changed", LANTERN))

    await eventually(is_told)
    (data,) = await told(system, "kinguin.product.changed", LANTERN)
    assert KinguinProductChanged.FromString(data).price.minor_units == 699
