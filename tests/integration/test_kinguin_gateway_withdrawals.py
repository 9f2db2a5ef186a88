"""What is withdrawn is never sold: the rows, and two replicas of which some buy and some withdraw the same."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from chassis.database import Database
from chassis.errors import RemoteError, RequestIdReused
from chassis.outbox import Outbox
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2
from kinguin_gateway.adapters.announcements import STREAMS
from kinguin_gateway.adapters.postgres import PostgresPurchases
from kinguin_gateway.adapters.postgres_switch import PostgresSwitch
from kinguin_gateway.domain.guard import WITHDRAWAL
from kinguin_gateway.domain.purchase import Intent, PurchaseState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.errors import ExternalIdConflict
from kinguin_gateway.ports.purchases import Begun
from sandbox.pki import Identity
from sandbox.servers.nats import NatsServer

from tests.integration.kinguin_gateway_system import (
    CALL_SECONDS,
    MIGRATIONS,
    PASSING,
    SETTLE_SECONDS,
    Replica,
    System,
    a_purchase,
    fails,
    open_system,
    place,
    told,
)
from tests.integration.real_servers import OneDatabase, Postgres, eventually, fetch
from tests.integration.test_kinguin_gateway_purchases import LEASE, WINDOW, Desk
from tests.unit.kinguin_gateway.fakes import INTENT, FakePurchases, an_order

if TYPE_CHECKING:
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub

SECOND = timedelta(seconds=1)
NEVER = datetime.max.replace(tzinfo=UTC)
ADMIN = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
RACES = 24


@pytest.fixture
async def kinguin_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("kinguin", MIGRATIONS)


@pytest.fixture(params=["fake", "postgres"])
async def desk(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Desk]:
    if request.param == "fake":
        yield Desk(FakePurchases(now=lambda: datetime.now(UTC)))
        return
    made = await postgres.make_database("kinguin", MIGRATIONS)
    async with Database.open(made.service_url, application="test") as database:
        yield Desk(PostgresPurchases(database, Outbox(STREAMS)))


async def withdraw(desk: Desk, intent: Intent = INTENT, request_id: str = "") -> Begun:
    return await desk.purchases.withdraw(intent, request_id=request_id or str(uuid.uuid4()), window=WINDOW, lease=LEASE)


def is_refused(begun: Begun) -> bool:
    purchase = begun.purchase
    return (purchase.state, purchase.refusal, purchase.withdrawn) == (PurchaseState.REFUSED, WITHDRAWAL, True)


async def test_what_is_new_is_refused_and_never_opened(desk: Desk) -> None:
    assert is_refused(await withdraw(desk))
    again = await desk.begin()
    assert (again.opened, again.claimed, is_refused(again)) == (False, False, True)
    assert await desk.purchases.stand(INTENT, request_id="1", window=WINDOW) == again.purchase
    assert is_refused(await withdraw(desk))
    assert await desk.purchases.claim_due(9, lease=LEASE) == []


async def test_what_was_not_sent_or_stands_in_line_is_refused(desk: Desk) -> None:
    begun = await desk.begin()
    await desk.purchases.record_not_sent(begun.purchase)
    assert is_refused(await withdraw(desk))
    other = replace(INTENT, external_id="kf-0002")
    cause = PauseCause.UNAUTHORIZED
    assert (await desk.purchases.park(other, request_id="2", cause=cause, reason="", window=WINDOW)).parked
    out = await withdraw(desk, other)
    assert is_refused(out)
    assert not out.purchase.parked


async def test_an_open_attempt_goes_on_and_the_wish_is_kept(desk: Desk) -> None:
    attempt = (await desk.begin(lease=timedelta(0))).purchase
    first, second = [await withdraw(desk) for _ in range(2)]
    assert {(each.purchase.state, each.purchase.withdrawn) for each in (first, second)} == {
        (PurchaseState.IN_DOUBT, True)
    }
    assert (first.claimed, second.claimed) == (True, False)
    assert first.purchase.send_deadline == attempt.send_deadline
    # Its sender does not know of it, and need not.
    placed = await desk.purchases.record_taken(attempt, an_order(), adopted=False, look=SECOND)
    assert (placed.state, placed.withdrawn) == (PurchaseState.PLACED, True)
    told_again = await withdraw(desk)
    assert (told_again.purchase.state, told_again.claimed) == (PurchaseState.PLACED, False)


@pytest.mark.parametrize("end", ["absent", "not sent", "parked"])
async def test_what_comes_to_nothing_after_a_withdrawal_is_refused_and_not_intended(desk: Desk, end: str) -> None:
    attempt = (await desk.begin()).purchase
    await withdraw(desk)
    match end:
        case "absent":
            early = await desk.purchases.record_absent(attempt, sent_before=attempt.send_deadline)
            assert early.state is PurchaseState.IN_DOUBT
            after = await desk.purchases.record_absent(attempt, sent_before=NEVER)
        case "not sent":
            after = await desk.purchases.record_not_sent(attempt)
        case _:
            cause = PauseCause.INSUFFICIENT_BALANCE
            after = await desk.purchases.record_parked(attempt, cause=cause, reason="no money")
    assert (after.state, after.refusal, after.parked) == (PurchaseState.REFUSED, WITHDRAWAL, False)
    assert await desk.purchases.claim_due(9, lease=LEASE) == []
    # Against everything that we assume of the supplier it took the order: it is told, and stays nobody's.
    late = await desk.purchases.record_taken(attempt, an_order(), adopted=False, look=SECOND)
    assert (late.state, late.supplier_order_id) == (PurchaseState.REFUSED, "")


async def test_of_those_who_buy_and_those_who_withdraw_at_one_time_one_kind_wins(desk: Desk) -> None:
    for number in range(20):
        intent = replace(INTENT, external_id=f"kf-race-{number}")
        calls = [desk.begin(intent) for _ in range(3)] + [withdraw(desk, intent) for _ in range(3)]
        random.shuffle(calls)
        begun = await asyncio.gather(*calls)
        assert (opened := sum(each.opened for each in begun)) <= 1
        last = (await withdraw(desk, intent)).purchase
        assert last.state is (PurchaseState.IN_DOUBT if opened else PurchaseState.REFUSED)
        assert last.withdrawn


async def test_a_withdrawal_is_of_one_purchase(desk: Desk) -> None:
    request_id = str(uuid.uuid4())
    await withdraw(desk, request_id=request_id)
    with pytest.raises(ExternalIdConflict):
        await withdraw(desk, replace(INTENT, quantity=1))
    with pytest.raises(RequestIdReused):
        await withdraw(desk, replace(INTENT, external_id="kf-0002"), request_id=request_id)


# What only the real one has.


async def test_the_database_itself_keeps_what_is_withdrawn_from_being_sent_again(
    kinguin_database: OneDatabase,
) -> None:
    async with Database.open(kinguin_database.service_url, application="test") as database:
        desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
        await withdraw(desk)
        await desk.begin(replace(INTENT, external_id="kf-0002"))
        await withdraw(desk, replace(INTENT, external_id="kf-0002"))
    connection = await asyncpg.connect(kinguin_database.service_url)
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE purchase SET state = 'intended'")
    finally:
        await connection.close()


async def test_each_withdrawal_is_audited_once_when_nothing_can_come_of_it_any_more(
    kinguin_database: OneDatabase,
) -> None:
    async with Database.open(kinguin_database.service_url, application="test") as database:
        desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
        for _ in range(3):
            await withdraw(desk)
            await desk.purchases.refuse(INTENT, request_id="1", problem=WITHDRAWAL, window=WINDOW)
        other = replace(INTENT, external_id="kf-0002")
        attempt = (await desk.begin(other)).purchase
        await withdraw(desk, other)
        rows = await fetch(kinguin_database.superuser_url, "SELECT data FROM outbox ORDER BY position")
        assert len(rows) == 1
        await desk.purchases.record_absent(attempt, sent_before=NEVER)
    rows = await fetch(kinguin_database.superuser_url, "SELECT data FROM outbox ORDER BY position")
    facts = [AuditRecorded.FromString(row["data"]) for row in rows]
    assert [(fact.action, fact.details["external_id"]) for fact in facts] == [
        ("purchase.withdrawn", "kf-0001"),
        ("purchase.withdrawn", "kf-0002"),
    ]
    assert all(fact.request_id and fact.order_id == "order-1" for fact in facts)


async def test_what_is_new_to_a_database_that_forgot_is_in_doubt_and_not_refused(kinguin_database: OneDatabase) -> None:
    async with Database.open(kinguin_database.service_url, application="test") as database:
        desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
        refused = replace(INTENT, external_id="kf-before")
        await withdraw(desk, refused)
        connection = await asyncpg.connect(kinguin_database.migrator_url)
        try:
            await connection.execute("UPDATE buying SET incarnation = 'restored'")
        finally:
            await connection.close()
        begun = await withdraw(desk)
        assert (begun.purchase.state, begun.purchase.withdrawn) == (PurchaseState.IN_DOUBT, True)
        assert (begun.opened, begun.claimed) == (False, True)
        assert begun.purchase.send_deadline > begun.time + WINDOW - SECOND
        assert is_refused(await withdraw(desk, refused))
        after = await desk.purchases.record_absent(begun.purchase, sent_before=NEVER)
        assert after.refusal == WITHDRAWAL
        # Nor is it where nobody is let in meanwhile.
        other, cause = replace(INTENT, external_id="kf-0002"), PauseCause.UNAUTHORIZED
        parked = await desk.purchases.park(other, request_id="2", cause=cause, reason="", window=WINDOW)
        assert parked.state is PurchaseState.IN_DOUBT


async def test_what_leaves_the_line_leaves_its_money_to_those_behind(kinguin_database: OneDatabase) -> None:
    async with Database.open(kinguin_database.service_url, application="test") as database:
        purchases, switch = PostgresPurchases(database, Outbox(STREAMS)), PostgresSwitch(database, Outbox(STREAMS))
        first, second = (replace(INTENT, external_id=f"kf-{name}") for name in ("first", "second"))
        for intent in (first, second):
            cause = PauseCause.INSUFFICIENT_BALANCE
            await purchases.park(intent, request_id=intent.external_id, cause=cause, reason="", window=WINDOW)
        enough_for_one = INTENT.quantity * INTENT.max_unit_cents
        assert await switch.release(1, balance_cents=enough_for_one) == 1
        assert await switch.release(9, balance_cents=enough_for_one) == 0
        assert is_refused(await withdraw(Desk(purchases), first))
        assert await switch.release(9, balance_cents=enough_for_one) == 1
        assert (await switch.status()).parked_count == 0


@pytest.fixture(scope="module")
async def system(
    postgres: Postgres,
    nats_server: NatsServer,
    pki: Mapping[str, Identity],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[System]:
    async with open_system(tmp_path_factory.mktemp("kinguin-withdrawals"), postgres, nats_server, pki) as system:
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
    system.simulator.behave()


def withdrawing(request: pb.PlaceOrderRequest) -> pb.WithdrawPurchaseRequest:
    return pb.WithdrawPurchaseRequest(
        request_id=str(uuid.uuid4()),
        external_id=request.external_id,
        order_id=request.order_id,
        item_id=request.item_id,
        product_id=request.product_id,
        offer_id=request.offer_id,
        quantity=request.quantity,
        max_unit_price=request.max_unit_price,
        key_type=request.key_type,
    )


async def withdraw_at_last(gateway: "KinguinServiceAsyncStub", request: pb.PlaceOrderRequest) -> pb.Purchase:
    """Ask until it is known, as fulfillment does."""
    asking = withdrawing(request)
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return (await gateway.WithdrawPurchase(asking, timeout=CALL_SECONDS)).purchase
            except RemoteError as error:
                if error.reason not in PASSING:
                    raise
                wait = error.retry_after.total_seconds() if error.retry_after else 0.2
            await asyncio.sleep(min(wait, 0.5))


async def place_or_refused(gateway: "KinguinServiceAsyncStub", request: pb.PlaceOrderRequest) -> str:
    try:
        return (await place(gateway, request)).supplier_order_id
    except RemoteError as error:
        return error.metadata["kind"]


async def test_each_reference_is_sold_once_or_withdrawn_and_never_sold(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.misbehave("accept_duplicate_external_id")
    system.simulator.misbehave("drop_answer", operation="placeOrder", count=4)
    system.simulator.misbehave("status", operation="placeOrder", status=500, count=4)
    requests = [a_purchase(quantity=1) for _ in range(RACES)]

    async def race(number: int, request: pb.PlaceOrderRequest) -> tuple[pb.Purchase, set[str]]:
        async def is_opened() -> bool:
            statement = f"SELECT 1 FROM purchase WHERE external_id = '{request.external_id}'"  # noqa: S608 # ours
            return bool(await fetch(system.database.superuser_url, statement))

        buying = [asyncio.ensure_future(place_or_refused(gateway, request)) for _ in range(2)]
        # Half of them when an attempt is on its way, the others while it is still thought about.
        if number % 2:
            await eventually(is_opened)
        withdrawn = await withdraw_at_last(gateway, request)
        return withdrawn, set(await asyncio.gather(*buying))

    ends = await asyncio.gather(*(race(number, request) for number, request in enumerate(requests)))
    for request, (purchase, answers) in zip(requests, ends, strict=True):
        sold = system.simulator.sold(request.external_id)
        if purchase.state == pb.PURCHASE_STATE_PLACED:
            (order,) = sold
            assert answers == {order["order_id"]} == {purchase.supplier_order_id}
        else:
            assert (purchase.state, purchase.refusal.kind) == (pb.PURCHASE_STATE_REFUSED, "withdrawn")
            assert (sold, answers) == ([], {"withdrawn"})
    states = {purchase.state for purchase, _ in ends}
    assert states == {pb.PURCHASE_STATE_PLACED, pb.PURCHASE_STATE_REFUSED}


async def test_it_works_while_buying_is_paused(
    gateway: "KinguinServiceAsyncStub", system: System, replicas: tuple[Replica, Replica]
) -> None:
    request, unheard_of = a_purchase(), a_purchase()
    posts = system.simulator.asked("placeOrder")
    async with system.calling(*replicas, identity="edge") as console:
        pausing = pb.PauseBuyingRequest(request_id=str(uuid.uuid4()), actor=ADMIN, reason="stock-taking")
        await console.PauseBuying(pausing)
        assert (await fails(gateway.PlaceOrder(request))).reason == "BUYING_PAUSED"
        for each in (request, unheard_of):
            answer = await gateway.WithdrawPurchase(withdrawing(each))
            assert answer.purchase.refusal.kind == "withdrawn"
        status = (await console.CheckSupplier(pb.CheckSupplierRequest())).buying
        assert (status.parked_count, status.paused) == (0, True)
        resuming = pb.ResumeBuyingRequest(request_id=str(uuid.uuid4()), actor=ADMIN, reason="done")
        await console.ResumeBuying(resuming)
        assert (await fails(console.WithdrawPurchase(withdrawing(request)))).reason == "METHOD_NOT_ALLOWED"
    for each in (request, unheard_of):
        error = await fails(gateway.PlaceOrder(each))
        assert (error.reason, error.metadata["kind"]) == ("PURCHASE_REFUSED", "withdrawn")
        shown = (await gateway.GetOrder(pb.GetOrderRequest(external_id=each.external_id))).purchase
        assert (shown.state, shown.withdrawn, shown.parked) == (pb.PURCHASE_STATE_REFUSED, True, False)
        assert len(await told(system, "audit.recorded", each.external_id)) == 1
    assert system.simulator.asked("placeOrder") == posts
    assert (await fails(gateway.WithdrawPurchase(pb.WithdrawPurchaseRequest()))).reason == "INVALID_REQUEST"
    other = withdrawing(request)
    other.quantity = 1
    assert (await fails(gateway.WithdrawPurchase(other))).reason == "EXTERNAL_ID_CONFLICT"


async def test_a_doubt_ends_refused_by_polling_though_nobody_asks_again(
    gateway: "KinguinServiceAsyncStub", system: System
) -> None:
    system.simulator.misbehave("status", operation="placeOrder", status=500, count=1)
    request = a_purchase()
    assert (await fails(gateway.PlaceOrder(request))).reason == "PURCHASE_IN_DOUBT"
    posts = system.simulator.asked("placeOrder")
    error = await fails(gateway.WithdrawPurchase(withdrawing(request)))
    assert error.reason == "PURCHASE_IN_DOUBT"
    assert error.retry_after is not None
    asking = pb.GetOrderRequest(external_id=request.external_id)
    async with asyncio.timeout(SETTLE_SECONDS):
        while (shown := (await gateway.GetOrder(asking)).purchase).state == pb.PURCHASE_STATE_IN_DOUBT:
            assert shown.withdrawn
            await asyncio.sleep(0.1)
    assert (shown.state, shown.refusal.kind, shown.attempt) == (pb.PURCHASE_STATE_REFUSED, "withdrawn", 1)
    assert system.simulator.asked("placeOrder") == posts
    assert (await withdraw_at_last(gateway, request)).refusal.kind == "withdrawn"


@pytest.mark.parametrize("step", ["before_withdraw_commit", "after_withdraw_commit", "after_find_orders"])
async def test_whoever_dies_in_a_withdrawal_leaves_it_to_be_repeated(
    gateway: "KinguinServiceAsyncStub", system: System, step: str
) -> None:
    doomed = system.start(KEYFERRY_FAILPOINTS=f"kinguin_gateway.{step}=crash")
    doomed.process.wait_ready()
    system.simulator.misbehave("status", operation="placeOrder", status=500, count=1)
    request = a_purchase()
    assert (await fails(gateway.PlaceOrder(request))).reason == "PURCHASE_IN_DOUBT"
    posts = system.simulator.asked("placeOrder")
    async with system.calling(doomed) as stub:
        await fails(stub.WithdrawPurchase(withdrawing(request), timeout=2))
    assert (await withdraw_at_last(gateway, request)).refusal.kind == "withdrawn"
    assert await place_or_refused(gateway, request) == "withdrawn"
    assert system.simulator.asked("placeOrder") == posts
    assert system.simulator.sold(request.external_id) == []
