"""The guard's rows: one suite for PostgreSQL and for the fake that the histories run on."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.outbox import Outbox
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged
from kinguin_gateway.adapters.announcements import STREAMS
from kinguin_gateway.adapters.postgres import PostgresPurchases
from kinguin_gateway.adapters.postgres_looks import hurry_look
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Problem,
    PurchaseState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.errors import ExternalIdConflict
from kinguin_gateway.ports.purchases import Begun, Purchases

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres
from tests.unit.kinguin_gateway.fakes import INTENT, FakePurchases, an_order, deliver

SECOND = timedelta(seconds=1)
WINDOW = 5 * SECOND
LEASE = 10 * SECOND


@pytest.fixture
async def kinguin_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("kinguin", REPOSITORY / "services" / "kinguin-gateway" / "migrations")


@pytest.fixture
async def database(kinguin_database: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(kinguin_database.service_url, application="test") as database:
        yield database


@dataclass
class Desk:
    """A store and the few things that a caller of it repeats."""

    purchases: Purchases

    async def begin(
        self,
        intent: Intent = INTENT,
        *,
        request_id: str | None = None,
        window: timedelta = WINDOW,
        lease: timedelta = LEASE,
    ) -> Begun:
        return await self.purchases.begin(
            intent, request_id=request_id or str(uuid.uuid4()), window=window, lease=lease
        )

    async def place(self, order: SupplierOrder | None = None, look: timedelta = SECOND) -> None:
        begun = await self.begin()
        await self.purchases.record_taken(begun.purchase, order or an_order(), adopted=False, look=look)


@pytest.fixture(params=["fake", "postgres"])
async def desk(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Desk]:
    if request.param == "fake":
        yield Desk(FakePurchases(now=lambda: datetime.now(UTC)))
        return
    made = await postgres.make_database("kinguin", REPOSITORY / "services" / "kinguin-gateway" / "migrations")
    async with Database.open(made.service_url, application="test") as database:
        yield Desk(PostgresPurchases(database, Outbox(STREAMS)))


async def test_the_first_request_opens_the_first_attempt(desk: Desk) -> None:
    begun = await desk.begin()
    assert begun.opened
    assert not begun.claimed
    assert begun.purchase.intent == INTENT
    assert (begun.purchase.state, begun.purchase.attempt) == (PurchaseState.IN_DOUBT, 1)
    assert begun.time <= begun.purchase.send_deadline - WINDOW + SECOND
    assert begun.purchase.send_deadline >= begun.time + WINDOW - SECOND


async def test_of_many_at_one_time_one_opens_the_attempt(desk: Desk) -> None:
    begun = await asyncio.gather(*(desk.begin() for _ in range(8)))
    assert sum(one.opened for one in begun) == 1
    assert not any(one.claimed for one in begun)


async def test_an_attempt_is_nobody_elses_before_its_lease_ends_and_is_then_settled_not_sent(desk: Desk) -> None:
    await desk.begin(lease=timedelta(seconds=0.2))
    again = await desk.begin()
    assert (again.opened, again.claimed) == (False, False)
    await asyncio.sleep(0.3)
    claims = await asyncio.gather(*(desk.begin() for _ in range(4)))
    assert [one.opened for one in claims] == [False] * 4
    assert sum(one.claimed for one in claims) == 1
    assert {one.purchase.attempt for one in claims} == {1}


async def test_another_purchase_under_the_same_reference_is_a_conflict(desk: Desk) -> None:
    await desk.begin()
    with pytest.raises(ExternalIdConflict):
        await desk.begin(replace(INTENT, quantity=1))


async def test_a_request_id_begins_one_purchase(desk: Desk) -> None:
    request_id = str(uuid.uuid4())
    await desk.begin(request_id=request_id)
    with pytest.raises(RequestIdReused):
        await desk.begin(replace(INTENT, external_id="kf-0002"), request_id=request_id)
    assert not (await desk.begin(request_id=request_id)).opened


async def test_what_was_certainly_not_sent_is_sent_by_the_next_attempt(desk: Desk) -> None:
    begun = await desk.begin()
    assert (await desk.purchases.record_not_sent(begun.purchase)).state is PurchaseState.INTENDED
    again = await desk.begin()
    assert again.opened
    assert again.purchase.attempt == 2


async def test_an_absence_counts_only_for_what_had_to_be_sent_before(desk: Desk) -> None:
    begun = await desk.begin()
    too_early = begun.purchase.send_deadline
    assert (await desk.purchases.record_absent(begun.purchase, sent_before=too_early)).state is PurchaseState.IN_DOUBT
    late_enough = begun.purchase.send_deadline + timedelta(microseconds=1)
    assert (await desk.purchases.record_absent(begun.purchase, sent_before=late_enough)).state is PurchaseState.INTENDED
    assert (await desk.begin()).purchase.attempt == 2


async def test_a_refusal_is_final_and_keeps_the_suppliers_words(desk: Desk) -> None:
    begun = await desk.begin()
    problem = Problem("ProductUnavailable", "sold out", "trace-1")
    refused = await desk.purchases.record_refused(begun.purchase, problem)
    assert (refused.state, refused.refusal) == (PurchaseState.REFUSED, problem)
    again = await desk.begin()
    assert (again.opened, again.claimed, again.purchase.refusal) == (False, False, problem)


async def test_a_doubt_ends_the_time_in_which_the_attempt_may_be_sent(desk: Desk) -> None:
    begun = await desk.begin()
    doubtful = await desk.purchases.record_doubt(begun.purchase, why="500", look=SECOND)
    assert doubtful.state is PurchaseState.IN_DOUBT
    assert doubtful.send_deadline < begun.purchase.send_deadline - 3 * SECOND
    assert doubtful.send_deadline >= begun.time


async def test_results_of_an_older_attempt_change_nothing(desk: Desk) -> None:
    old = (await desk.begin()).purchase
    await desk.purchases.record_not_sent(old)
    new = (await desk.begin()).purchase
    for after in (
        await desk.purchases.record_refused(old, Problem("Preorder")),
        await desk.purchases.record_not_sent(old),
        await desk.purchases.record_doubt(old, why="late", look=SECOND),
        await desk.purchases.record_absent(old, sent_before=datetime.max.replace(tzinfo=UTC)),
    ):
        assert (after.state, after.attempt, after.send_deadline) == (PurchaseState.IN_DOUBT, 2, new.send_deadline)


async def test_a_late_yes_is_true_whatever_became_of_the_attempt(desk: Desk) -> None:
    old = (await desk.begin()).purchase
    await desk.purchases.record_not_sent(old)
    placed = await desk.purchases.record_taken(old, an_order(), adopted=False, look=SECOND)
    assert (placed.state, placed.supplier_order_id) == (PurchaseState.PLACED, "PHS00001")
    other = await desk.purchases.record_taken(old, an_order(number=2), adopted=False, look=SECOND)
    assert other.supplier_order_id == "PHS00001"


async def test_a_placed_purchase_shows_what_the_order_said(desk: Desk) -> None:
    await desk.place(deliver(an_order(), 1, SupplierOrderState.COMPLETED))
    found = await desk.purchases.find(INTENT.external_id)
    assert found is not None
    assert found.supplier_order_state is SupplierOrderState.COMPLETED
    assert (found.delivered_count, found.charged_cents, found.product_name) == (1, 1998, "Counter-Strike: Source")
    assert await desk.purchases.find("kf-none") is None


async def test_a_look_is_due_after_its_time_and_one_replica_has_it(desk: Desk) -> None:
    await desk.place(look=timedelta(seconds=0.2))
    assert await desk.purchases.claim_due(10, lease=LEASE) == []
    await asyncio.sleep(0.3)
    claims = await asyncio.gather(*(desk.purchases.claim_due(10, lease=LEASE) for _ in range(4)))
    (due,) = [due for claim in claims for due in claim]
    assert due.purchase.state is PurchaseState.PLACED
    await desk.purchases.postpone(due.purchase, look=timedelta(0))
    (due,) = await desk.purchases.claim_due(10, lease=LEASE)
    assert due.purchase.looks == 1


async def test_a_claim_takes_no_more_than_it_asked_for(desk: Desk) -> None:
    for number in range(5):
        begun = await desk.begin(replace(INTENT, external_id=f"kf-{number}"))
        order = an_order(begun.purchase.intent, number)
        await desk.purchases.record_taken(begun.purchase, order, adopted=False, look=timedelta(0))
    assert len(await desk.purchases.claim_due(3, lease=LEASE)) == 3
    assert len(await desk.purchases.claim_due(3, lease=LEASE)) == 2


async def test_a_finished_purchase_is_not_looked_at_again(desk: Desk) -> None:
    await desk.place(look=timedelta(0))
    (due,) = await desk.purchases.claim_due(10, lease=LEASE)
    await desk.purchases.record_look(due.purchase, an_order(), look=None)
    assert await desk.purchases.claim_due(10, lease=LEASE) == []


async def test_sealed_keys_are_kept_once_and_in_the_order_of_their_coming(desk: Desk) -> None:
    await desk.place()
    (known, digest) = (str(uuid.uuid4()), b"digest")
    so_far = await desk.purchases.load_keys(INTENT.external_id, request_id=known, digest=digest)
    assert so_far is not None
    assert so_far.keys == []
    first = [KeyRef("b", "key-b", "text/plain", held=False), KeyRef("a", "key-a", "image/png", held=True)]
    order = deliver(an_order(), 2, SupplierOrderState.COMPLETED)
    after = await desk.purchases.record_keys(so_far.purchase, order, first, finished=False)
    assert after.keys == first
    again = [KeyRef("a", "key-other", "text/plain", held=False), KeyRef("c", "key-c", "text/plain", held=False)]
    after = await desk.purchases.record_keys(so_far.purchase, order, again, finished=True)
    assert after.keys == [*first, again[1]]
    assert (after.purchase.sealed_count, after.purchase.delivered_count) == (3, 2)
    assert await desk.purchases.claim_due(10, lease=LEASE) == []


async def test_a_request_to_collect_is_told_apart_by_its_digest(desk: Desk) -> None:
    request_id = str(uuid.uuid4())
    assert await desk.purchases.load_keys("kf-none", request_id=request_id, digest=b"one") is None
    assert await desk.purchases.load_keys("kf-none", request_id=request_id, digest=b"one") is None
    with pytest.raises(RequestIdReused):
        await desk.purchases.load_keys("kf-none", request_id=request_id, digest=b"two")


# What only the real one has: events, and the hint of a webhook.


async def outbox(database: OneDatabase) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return list(await connection.fetch("SELECT * FROM outbox ORDER BY position"))
    finally:
        await connection.close()


async def test_each_outcome_is_audited_once(database: Database, kinguin_database: OneDatabase) -> None:
    desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
    begun = await desk.begin()
    for _ in range(2):
        await desk.purchases.record_doubt(begun.purchase, why="timeout", look=SECOND)
    for _ in range(2):
        await desk.purchases.record_taken(begun.purchase, an_order(), adopted=False, look=SECOND)
    other = await desk.begin(replace(INTENT, external_id="kf-0002"))
    await desk.purchases.record_refused(other.purchase, Problem("Preorder", "no", "trace-9"))
    told = [AuditRecorded.FromString(row["data"]) for row in await outbox(kinguin_database)]
    assert [fact.action for fact in told] == ["purchase.in_doubt", "purchase.placed", "purchase.refused"]
    assert {fact.order_id for fact in told} == {"order-1"}
    assert told[1].details["supplier_order_id"] == "PHS00001"
    assert told[2].details == {
        "external_id": "kf-0002",
        "item_id": "item-1",
        "product_id": INTENT.product_id,
        "quantity": "2",
        "attempt": "1",
        "kind": "Preorder",
        "trace": "trace-9",
    }
    assert all(fact.request_id for fact in told)


async def test_every_change_is_told_once_and_no_change_is_not(
    database: Database, kinguin_database: OneDatabase
) -> None:
    desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
    await desk.place(look=timedelta(0))
    flapping = [
        an_order(),
        deliver(an_order(), 1),
        deliver(an_order(), 1),
        an_order(state=SupplierOrderState.COMPLETED),
        an_order(),
        an_order(state=SupplierOrderState.COMPLETED),
    ]
    for order in flapping:
        (due,) = await desk.purchases.claim_due(1, lease=LEASE)
        await desk.purchases.record_look(due.purchase, order, look=timedelta(0))
        # A replica that comes late with what it read before tells nothing.
        await desk.purchases.record_look(due.purchase, an_order(state=SupplierOrderState.CANCELED), look=timedelta(0))
    rows = [row for row in await outbox(kinguin_database) if row["subject"] == "kinguin.order.changed"]
    told = [KinguinOrderChanged.FromString(row["data"]).status for row in rows]
    # The second of the two equal reads is told again: the delivered key still waits to be collected.
    assert told == ["processing", "processing", "completed", "processing", "completed"]
    assert len({row["event_id"] for row in rows}) == len(rows)


async def test_an_adopted_order_is_told(database: Database, kinguin_database: OneDatabase) -> None:
    desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
    begun = await desk.begin()
    await desk.purchases.record_taken(begun.purchase, an_order(), adopted=True, look=SECOND)
    subjects = [row["subject"] for row in await outbox(kinguin_database)]
    assert sorted(subjects) == ["audit.recorded", "kinguin.order.changed"]


@pytest.mark.parametrize(
    ("hint", "is_ours"),
    [
        ({"supplier_order_id": "PHS00001", "external_id": ""}, True),
        ({"supplier_order_id": "", "external_id": INTENT.external_id}, True),
        ({"supplier_order_id": "PHS00009", "external_id": "kf-9"}, False),
        ({"supplier_order_id": "", "external_id": ""}, False),
    ],
)
async def test_a_hint_makes_the_look_due_now(database: Database, hint: dict[str, str], is_ours: bool) -> None:  # noqa: FBT001 # a column of the table above
    desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
    await desk.place(look=timedelta(hours=1))
    async with database.transaction() as connection:
        assert await hurry_look(connection, **hint) is is_ours
    assert len(await desk.purchases.claim_due(1, lease=LEASE)) == is_ours


async def test_a_hint_that_came_before_the_answer_is_not_forgotten(database: Database) -> None:
    desk = Desk(PostgresPurchases(database, Outbox(STREAMS)))
    begun = await desk.begin()
    async with database.transaction() as connection:
        assert await hurry_look(connection, supplier_order_id="PHS00001", external_id=INTENT.external_id)
    assert await desk.purchases.claim_due(1, lease=LEASE) == []
    await desk.purchases.record_taken(begun.purchase, an_order(), adopted=False, look=timedelta(hours=1))
    assert len(await desk.purchases.claim_due(1, lease=LEASE)) == 1


async def test_the_service_cannot_forget_a_purchase(kinguin_database: OneDatabase) -> None:
    connection = await asyncpg.connect(kinguin_database.service_url)
    try:
        for statement in ("DELETE FROM purchase", "TRUNCATE purchase", "DELETE FROM sealed_key", "DROP TABLE purchase"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
