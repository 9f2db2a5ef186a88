"""What reconciliation reads: our purchases, the supplier's orders, top-ups and the balance, of a range of time."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2, money_pb2
from kinguin_gateway.adapters.postgres_listing import page_statement
from kinguin_gateway.domain.purchase import PurchaseState
from kinguin_gateway.ports.purchases import PurchaseFilter
from sandbox.pki import Identity
from sandbox.servers.nats import NatsServer
from sqlalchemy.dialects import postgresql

from tests.integration.kinguin_gateway_system import (
    MIGRATIONS,
    Replica,
    System,
    a_purchase,
    collect,
    fails,
    open_system,
    place,
)
from tests.integration.real_servers import OneDatabase, Postgres, eventually
from tests.unit.simulated import EPOCH

if TYPE_CHECKING:
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub

ADMIN = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
MANY = 200_000
# One purchase in a hundred was refused, one in a thousand is in doubt.
FILL = f"""
    INSERT INTO purchase (external_id, request_id, order_id, item_id, product_id, offer_id, quantity, max_unit_cents,
        key_type, state, attempt, send_deadline, supplier_order_id, create_time)
    SELECT 'kf-' || n, 'r-' || n, 'order-' || n / 3, 'item', 'product', '', 2, 1299, '',
        CASE WHEN n % 1000 = 0 THEN 'in_doubt' WHEN n % 100 = 0 THEN 'refused' ELSE 'placed' END,
        1, now(), CASE WHEN n % 100 <> 0 THEN 'PHS' || n END, timestamptz '2026-01-01' + n * interval '1 second'
    FROM generate_series(1, {MANY}) AS n
"""  # noqa: S608 # a constant


@pytest.fixture(scope="module")
async def filled(postgres: Postgres) -> OneDatabase:
    made = await postgres.make_database("kinguin", MIGRATIONS)
    connection = await asyncpg.connect(made.superuser_url)
    try:
        await connection.execute(FILL)
        await connection.execute("VACUUM ANALYZE purchase")
    finally:
        await connection.close()
    return made


async def blocks_read(
    connection: "asyncpg.Connection[asyncpg.Record]", wanted: PurchaseFilter, after: tuple[datetime, str] | None
) -> float:
    """Return how many blocks PostgreSQL touches for each purchase of a page of a thousand, or what is left of one."""
    statement = page_statement(wanted, size=1001, after=after)
    text = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call] # SQLAlchemy's
    plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"))[0]["Plan"]
    assert plan["Actual Rows"] > 0
    return float(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]) / float(plan["Actual Rows"])


@pytest.mark.parametrize("state", [None, PurchaseState.PLACED, PurchaseState.REFUSED])
async def test_every_page_of_a_range_costs_the_same(filled: OneDatabase, state: PurchaseState | None) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    start, end = begin + timedelta(seconds=10_000), begin + timedelta(seconds=MANY - 10_000)
    wanted = PurchaseFilter("", state, start_time=start, end_time=end)
    later = [(begin + timedelta(seconds=n), "kf-") for n in range(20_000, MANY - 10_000, 40_000)]
    connection = await asyncpg.connect(filled.superuser_url)
    try:
        costs = [await blocks_read(connection, wanted, after) for after in (None, *later)]
    finally:
        await connection.close()
    assert max(costs) < 2 * min(costs)
    # Of its row, and of the index of its sealed keys.
    assert max(costs) < 8


@pytest.fixture(scope="module")
async def system(
    postgres: Postgres,
    nats_server: NatsServer,
    pki: Mapping[str, Identity],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[System]:
    async with open_system(tmp_path_factory.mktemp("kinguin-books"), postgres, nats_server, pki) as system:
        yield system


@pytest.fixture(scope="module")
def replicas(system: System) -> tuple[Replica, Replica]:
    pair = system.start(), system.start()
    for replica in pair:
        replica.process.wait_ready()
    return pair


@pytest.fixture
async def gateway(system: System, replicas: tuple[Replica, Replica]) -> AsyncIterator["KinguinServiceAsyncStub"]:
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


def stamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


async def all_purchases(
    gateway: "KinguinServiceAsyncStub", start: Timestamp, end: Timestamp | None = None
) -> list[pb.Purchase]:
    listed, token = list[pb.Purchase](), ""
    while True:
        request = pb.ListPurchasesRequest(page_size=2, page_token=token, start_time=start, end_time=end)
        page = await gateway.ListPurchases(request)
        listed += page.purchases
        if not (token := page.next_page_token):
            return listed


async def test_purchases_and_orders_of_a_range_are_listed(gateway: "KinguinServiceAsyncStub") -> None:
    placed = [await place(gateway, a_purchase(quantity=1)) for _ in range(5)]
    times = [each.create_time for each in placed]
    listed = await all_purchases(gateway, times[1], times[4])
    assert [each.external_id for each in listed] == [each.external_id for each in placed[1:4]]
    # A token is of its range.
    first = pb.ListPurchasesRequest(page_size=1, start_time=times[1])
    token = (await gateway.ListPurchases(first)).next_page_token
    other = pb.ListPurchasesRequest(page_size=1, start_time=times[2], page_token=token)
    assert (await fails(gateway.ListPurchases(other))).reason == "INVALID_REQUEST"
    shown = [answer.order async for answer in gateway.SearchOrders(pb.SearchOrdersRequest())]
    mine = {each.external_id: each for each in shown}
    (last,) = [mine[each.external_id] for each in placed[-1:]]
    assert (last.quantity, last.charged_amount) == (1, placed[-1].charged_amount)
    # The supplier tells times in whole seconds, so that several may be of one.
    end = mine[placed[2].external_id].create_time
    before = {answer.order.external_id async for answer in gateway.SearchOrders(pb.SearchOrdersRequest(end_time=end))}
    assert before == {name for name, each in mine.items() if each.create_time.seconds < end.seconds}


async def test_a_search_of_many_orders_shows_each_once_while_more_come(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    for number in range(230):
        system.simulator.buy(f"many-{number}", "65a0c1d2e3f4051627380001", 1, "7.49")
    seen: list[str] = []
    async for answer in gateway.SearchOrders(pb.SearchOrdersRequest()):
        seen.append(answer.order.external_id)
        if len(seen) % 50 == 0:
            system.simulator.buy(f"late-{len(seen)}", "65a0c1d2e3f4051627380001", 1, "7.49")
    many = [external_id for external_id in seen if external_id.startswith("many-")]
    assert many == [f"many-{number}" for number in reversed(range(230))]
    assert len(set(seen)) == len(seen)


async def test_the_balance_is_explained_to_the_cent(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub", system: System
) -> None:
    begin = (await gateway.GetBalance(pb.GetBalanceRequest())).balance.minor_units
    start = datetime.now(UTC)
    # One is kept, one is given back, and of one a part never comes; one costs more than its price.
    kept = await place(gateway, a_purchase())
    returned = a_purchase()
    await place(gateway, returned)
    await collect(gateway, returned)
    system.simulator.misbehave("charge_differs", amount="1.23", count=1)
    dearer = await place(gateway, a_purchase())
    system.simulator.misbehave("cancel", count=1)
    system.simulator.misbehave("partial", keys=1, seconds=0.2, count=1)
    canceled = await place(gateway, a_purchase())
    giving = pb.ReturnKeysRequest(request_id=str(uuid.uuid4()), external_id=returned.external_id)
    await gateway.ReturnKeys(giving)
    top_up = pb.RecordTopUpRequest(
        request_id=str(uuid.uuid4()),
        actor=ADMIN,
        amount=money_pb2.Money(currency_code="EUR", minor_units=12_34),
        top_up_time=stamp(datetime.now(UTC)),
        reference="bank transfer",
    )
    await console.RecordTopUp(top_up)
    system.simulator.control("/balance", add="12.34")

    async def is_settled() -> bool:
        back = (await gateway.ReturnKeys(giving)).key_return
        shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=canceled.external_id))).purchase
        return back.state == pb.KEY_RETURN_STATE_REFUNDED and shown.supplier_order_state in {
            pb.SUPPLIER_ORDER_STATE_CANCELED,
            pb.SUPPLIER_ORDER_STATE_REFUNDED,
        }

    await eventually(is_settled)

    async def is_explained() -> bool:
        listed = await all_purchases(gateway, stamp(start))
        mine = {each.external_id: each for each in listed}
        spent = sum(each.charged_amount.minor_units for each in listed)
        back = sum(each.refunded_amount.minor_units for each in listed)
        added = [each.amount.minor_units for each in (await gateway.ListTopUps(pb.ListTopUpsRequest())).top_ups]
        end = (await gateway.GetBalance(pb.GetBalanceRequest())).balance.minor_units
        assert mine[returned.external_id].key_return.refunded_amount == mine[returned.external_id].charged_amount
        assert mine[kept.external_id].refunded_amount.minor_units == 0
        assert mine[dearer.external_id].charged_amount.minor_units != kept.charged_amount.minor_units
        return end - begin == sum(added) - spent + back and mine[canceled.external_id].refunded_amount.minor_units > 0

    await eventually(is_explained)


async def test_top_ups_are_listed_page_by_page_in_the_order_of_their_times(
    gateway: "KinguinServiceAsyncStub", console: "KinguinServiceAsyncStub"
) -> None:
    times = [EPOCH + timedelta(days=day) for day in (3, 1, 1, 2)]
    for number, time in enumerate(times):
        await console.RecordTopUp(
            pb.RecordTopUpRequest(
                request_id=str(uuid.uuid4()),
                actor=ADMIN,
                amount=money_pb2.Money(currency_code="EUR", minor_units=(number + 1) * (-1) ** number),
                top_up_time=stamp(time),
                reference=f"transfer {number}",
            )
        )
    until = stamp(EPOCH + timedelta(days=9))
    seen, token = list[pb.TopUp](), ""
    while True:
        page = await gateway.ListTopUps(pb.ListTopUpsRequest(end_time=until, page_size=1, page_token=token))
        seen += page.top_ups
        if not (token := page.next_page_token):
            break
    assert [each.top_up_time.ToDatetime(UTC) for each in seen] == sorted(times)
    assert {each.reference: each.amount.minor_units for each in seen} == {
        "transfer 0": 1,
        "transfer 1": -2,
        "transfer 2": 3,
        "transfer 3": -4,
    }
    assert len({each.top_up_id for each in seen}) == 4
    middle = pb.ListTopUpsRequest(start_time=stamp(times[3]), end_time=stamp(times[0]))
    assert [each.reference for each in (await gateway.ListTopUps(middle)).top_ups] == ["transfer 3"]
    foreign = pb.ListTopUpsRequest(page_token="x")
    assert (await fails(gateway.ListTopUps(foreign))).reason == "INVALID_REQUEST"
