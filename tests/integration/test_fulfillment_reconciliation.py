"""Reconciliation against a real PostgreSQL, with the books of the others in memory."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest
from chassis.database import Database
from chassis.failpoints import FailpointError, configure_failpoints
from fulfillment.adapters.reports import PostgresReports
from fulfillment.domain.reconciliation import Kind, Limits, Range
from fulfillment.ports.reconciliation import LEASE, Difference, LeaseLost, Report, ReportState, TheirBalance, TheirTopUp
from fulfillment.reconciling import MOST_TRIES, Reconciling

from tests.integration.fulfillment_reports import OUTBOX, a_reconciling
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.unit.fulfillment.reconciled_world import (
    CHARGED,
    END,
    MINUTE,
    NOW,
    SECOND,
    SPAN,
    START,
    TOTAL,
    FakeLedgers,
    FixedClock,
    World,
    healthy,
)
from tests.unit.fulfillment.spoiling import SPOILS

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
HOUR = timedelta(hours=1)


@dataclass
class Shop:
    """One database, one clock, and what a replica works with."""

    database: OneDatabase
    opened: Database
    reports: PostgresReports
    clock: FixedClock

    async def load(self, world: World) -> None:
        connection = await asyncpg.connect(self.database.superuser_url)
        try:
            await world.load(connection)
            await connection.execute("UPDATE reconciliation_schedule SET next_time = 'infinity'")
        finally:
            await connection.close()

    def replica(self, ledgers: FakeLedgers) -> Reconciling:
        return a_reconciling(self.opened, self.reports, ledgers, clock=self.clock, limits=Limits())

    async def ask(self, span: Range = SPAN, report_id: str = "report-1") -> Report:
        async with self.reports.transaction() as transaction:
            return await transaction.ask(span, report_id=report_id, now=self.clock.now())

    async def report(self, ledgers: FakeLedgers, span: Range = SPAN, report_id: str = "report-1") -> Report:
        """Ask for a report, make it and return it."""
        await self.ask(span, report_id)
        replica = self.replica(ledgers)
        (run,) = await replica.claim(1)
        await replica.work(run)
        found = await self.reports.get(report_id)
        assert found is not None
        assert found.state is ReportState.DONE, found.failure
        return found

    async def differences(self, report: Report) -> list[Difference]:
        assert report.run_id is not None
        return list(await self.reports.differences(report.run_id, kind=None, after=0, limit=1000))

    async def staged(self) -> int:
        tables = ("run", "purchase", "supplier_order", "key", "surplus", "candidate")
        rows = [await fetch(self.database.superuser_url, f"TABLE stage_{table}") for table in tables]
        return sum(map(len, rows))


@pytest.fixture
async def shop(postgres: Postgres) -> AsyncIterator[Shop]:
    database = await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")
    clock = FixedClock()
    async with Database.open(database.service_url, application="test") as opened:
        yield Shop(database, opened, PostgresReports(opened, OUTBOX, clock=clock, limits=Limits()), clock)


async def test_a_healthy_world_has_no_difference(shop: Shop) -> None:
    world = healthy(300)
    await shop.load(world)
    report = await shop.report(world.ledgers)
    assert report.differences == {}
    expected = dict.fromkeys(("payments", "fulfillments", "purchases", "supplier_orders", "keys"), 300)
    assert report.counts == expected
    assert await shop.staged() == 0


async def test_payments_that_a_person_ended_are_no_difference(shop: Shop) -> None:
    world, late = healthy(3), {"close_time": NOW, "closure": "CLOSED", "close_note": "a test"}
    world.payment("closed", NOW - timedelta(hours=1, minutes=30), **late)
    # Its order came after all: with the payment it would be paid twice, and in another currency.
    world.payment("h1", NOW - timedelta(minutes=30), payment_id="pay-too-much", **late)
    world.payment("h1", NOW - timedelta(minutes=30), payment_id="pay-other", currency="USD", **late)
    world.payment("h2", NOW - timedelta(minutes=30), payment_id="pay-assigned", told_order_id="typo")
    world.ours("payment", "pay-h2", minor=TOTAL - 1)
    world.ours("payment", "pay-assigned", minor=1)
    await shop.load(world)
    assert (await shop.report(world.ledgers)).differences == {}


async def test_every_kind_is_found_once_and_nothing_else(shop: Shop) -> None:
    world = healthy(300)
    for kind, spoil in SPOILS.items():
        spoil(world, f"x-{kind.value}")
    await shop.load(world)
    found = await shop.differences(await shop.report(world.ledgers))
    names = sorted((str(each.kind), _whose(each)) for each in found)
    assert names == sorted((kind.value, f"x-{kind.value}") for kind in SPOILS)
    assert set(Kind) - set(SPOILS) == {Kind.BALANCE_UNEXPLAINED}


def _whose(difference: Difference) -> str:
    parts = (difference.order_id, difference.supplier_order_id.removeprefix("S-"), difference.payment_id)
    return next(part.removeprefix("pay-") for part in parts if part)


async def test_what_is_still_on_its_way_is_no_difference(shop: Shop) -> None:
    world = healthy(20)
    # Paid just before the end, and bought, sealed and opened after it.
    world.order("late", END - SECOND)
    # Paid, and waiting to be bought, as at any moment some are.
    world.order("waits", END - MINUTE, state="PENDING")
    purchase = world.rows["purchase"]["kf1-waits"]
    world.not_bought("waits")
    waiting = {"state": "PENDING", "place_time": None, "supplier_order_id": "", "charged": None}
    world.rows["purchase"]["kf1-waits"] = purchase | waiting
    # Asked for days before it was placed: not in the list of the range, and known when asked for.
    world.order("parked", START + MINUTE)
    world.theirs("parked", create_time=START - timedelta(days=2))
    # Missing in each list, as happens while pages are read, and there when asked for.
    world.order("lagging", START + MINUTE)
    world.ledgers.hidden = {"kf1-lagging", "S-lagging", "key-lagging"}
    await shop.load(world)
    report = await shop.report(world.ledgers)
    assert report.differences == {}
    assert world.ledgers.asked["purchase"] >= 2


async def test_a_difference_by_age_is_told_by_the_report_in_which_its_limit_passes(shop: Shop) -> None:
    world = healthy(3)
    SPOILS[Kind.KEY_NEVER_OPENED](world, "sleeper")
    await shop.load(world)
    before = await shop.report(world.ledgers, Range(START - HOUR, START), "before")
    during = await shop.report(world.ledgers, SPAN, "during")
    assert (before.differences, during.differences) == ({}, {"KEY_NEVER_OPENED": 1})


async def test_orders_bought_too_much_are_given_back_by_themselves_while_the_supplier_takes_them(shop: Shop) -> None:
    world = healthy(5)
    SPOILS[Kind.BOUGHT_TWICE](world, "young")
    SPOILS[Kind.BOUGHT_TWICE](world, "refused")
    old = Range(NOW - timedelta(days=3), END)
    world.order("old", NOW - timedelta(days=2))
    world.supplier_order("S-old-again", "kf1-old", NOW - timedelta(days=2))
    world.ledgers.refusing = {"S-refused-again"}
    await shop.load(world)
    report = await shop.report(world.ledgers, old)
    mended = {each.order_id: each.mended for each in await shop.differences(report)}
    assert mended == {"young": True, "refused": False, "old": False}
    assert world.ledgers.returned == ["S-young-again"]
    assert report.mended_count == 1


async def test_what_our_own_purchase_holds_for_its_order_is_never_given_back(shop: Shop) -> None:
    """kinguin-gateway's database was restored, and keeps another order of the two than the one that was delivered."""
    world = healthy(3)
    SPOILS[Kind.BOUGHT_TWICE](world, "twice")
    world.ours("purchase", "kf1-twice", supplier_order_id="S-twice-again")
    await shop.load(world)
    report = await shop.report(world.ledgers)
    assert report.differences["BOUGHT_TWICE"] == 1
    assert (world.ledgers.returned, report.mended_count) == ([], 0)


async def test_an_order_under_the_reference_of_a_refused_purchase_is_given_back(shop: Shop) -> None:
    """The supplier said no, and took the order all the same."""
    world = healthy(3)
    world.order("refused", END - HOUR, state="NEEDS_ATTENTION", reason="PURCHASE_REFUSED")
    world.without("refused", "order_key", "mail")
    del world.ledgers.sealed["key-refused"]
    unbought = {"place_time": None, "supplier_order_id": "", "charged": None}
    world.ours("purchase", "kf1-refused", state="NEEDS_ATTENTION", reason="PURCHASE_REFUSED", **unbought)
    world.theirs("refused", state="REFUSED", supplier_order_id="", supplier_state="", charged=None)
    await shop.load(world)
    report = await shop.report(world.ledgers)
    assert report.differences == {"BOUGHT_TWICE": 1}
    assert (world.ledgers.returned, report.mended_count) == (["S-refused"], 1)


async def test_keys_that_nobody_was_told_of_are_taken_in(shop: Shop) -> None:
    world = healthy(3)
    wanted = {"state": "NEEDS_ATTENTION", "reason": "KEYS_TOO_LATE"}
    for name, state in (("wanted", wanted), ("given-back", {"state": "REFUNDED", "reason": ""})):
        world.order(name, END - HOUR, **state)
        world.ours("purchase", f"kf1-{name}", **state)
        world.vaults(name, open_time=None)
        world.without(name, "order_key", "mail")
    SPOILS[Kind.KEY_UNKNOWN_TO_ORDER](world, "of-no-order")
    await shop.load(world)
    report = await shop.report(world.ledgers)
    assert report.differences["KEY_UNKNOWN_TO_ORDER"] == 3
    unknown = [each for each in await shop.differences(report) if each.kind is Kind.KEY_UNKNOWN_TO_ORDER]
    assert {each.key_id: each.mended for each in unknown} == {
        "key-wanted": True,
        "key-given-back": True,
        "key-of-no-order": False,
    }
    rows = await fetch(shop.database.superuser_url, "SELECT key_id, revoke_time FROM order_key WHERE open_time IS NULL")
    assert {row["key_id"]: row["revoke_time"] is None for row in rows} == {"key-wanted": True, "key-given-back": False}
    states = {each.key_id: each.state for each in world.ledgers.sealed.values() if each.open_time is None}
    assert states == {"key-wanted": "SEALED", "key-given-back": "REVOKED", "key-of-no-order": "SEALED"}
    again = await shop.report(world.ledgers, report_id="again")
    assert again.differences.get("KEY_UNKNOWN_TO_ORDER") == 1


async def test_what_only_our_rows_call_revoked_is_revoked_at_vault(shop: Shop) -> None:
    world = healthy(3)
    world.order("late", END - HOUR, state="REFUNDED")
    world.ours("purchase", "kf1-late", state="REFUNDED")
    world.ours("order_key", "key-late", open_time=None, revoke_time=END - HOUR)
    world.vaults("late", open_time=None)
    await shop.load(world)
    report = await shop.report(world.ledgers)
    (disagrees,) = (each for each in await shop.differences(report) if each.kind is Kind.KEY_STATE_DISAGREES)
    assert disagrees.mended
    assert world.ledgers.sealed["key-late"].state == "REVOKED"


@pytest.mark.parametrize(
    "place",
    [
        "watch.after_commit",
        "close.before_commit",
        "close.after_commit",
        "compare.after_commit",
        "note_returns.after_commit",
        "before_give_back",
        "after_give_back",
        "mended.after_commit",
        "finish.before_commit",
        "finish.after_commit",
    ],
)
async def test_another_replica_goes_on_where_one_died(shop: Shop, place: str) -> None:
    world = healthy(20)
    for kind in (Kind.BOUGHT_TWICE, Kind.KEY_MISSING_AT_VAULT):
        SPOILS[kind](world, f"x-{kind.value}")
    world.ledgers.told = TheirBalance(5000, NOW)
    await shop.load(world)
    await shop.ask()
    first, second = shop.replica(world.ledgers), shop.replica(world.ledgers)
    configure_failpoints(f"fulfillment.report.{place}=error")
    try:
        (run,) = await first.claim(1)
        with pytest.raises(FailpointError):
            await first.work(run)
    finally:
        configure_failpoints("")
    assert await second.claim(1) == []
    shop.clock.moment += LEASE + SECOND
    world.ledgers.told = TheirBalance(5000, shop.clock.now())
    for again in await second.claim(1):
        await second.work(again)
    report = await shop.reports.get("report-1")
    assert report is not None
    assert report.differences == {"BOUGHT_TWICE": 1, "KEY_MISSING_AT_VAULT": 1}
    assert report.mended_count == 1
    assert set(world.ledgers.returned) == {"S-x-BOUGHT_TWICE-again"}
    await shop.report(world.ledgers, Range(START, START + SECOND), "report-2")
    assert await shop.staged() == 0


async def test_a_run_that_was_taken_over_writes_nothing_more(shop: Shop) -> None:
    world = healthy(3)
    await shop.load(world)
    await shop.ask()
    (stopped,) = await shop.replica(world.ledgers).claim(1)
    shop.clock.moment += LEASE + SECOND
    (present,) = await shop.replica(world.ledgers).claim(1)
    with pytest.raises(LeaseLost):
        await shop.reports.finish(stopped, counts={}, balance=None, now=shop.clock.now())
    await shop.reports.put_back(stopped, "late", run_at=None, now=shop.clock.now())
    await shop.replica(world.ledgers).work(present)
    report = await shop.reports.get("report-1")
    assert report is not None
    assert report.state is ReportState.DONE


async def test_staged_rows_that_a_crash_of_the_server_took_make_no_differences(shop: Shop) -> None:
    world = healthy(3)
    await shop.load(world)
    await shop.ask()
    (run,) = await shop.replica(world.ledgers).claim(1)
    await fetch(shop.database.superuser_url, "TRUNCATE stage_run, stage_purchase, stage_supplier_order, stage_key")
    with pytest.raises(LeaseLost):
        await shop.reports.compare(run, until=END)


async def test_a_report_is_tried_again_and_then_given_up(shop: Shop) -> None:
    world = healthy(3)
    world.ledgers.failing = MOST_TRIES
    await shop.load(world)
    await shop.ask()
    replica = shop.replica(world.ledgers)
    for _ in range(MOST_TRIES):
        (run,) = await replica.claim(1)
        await replica.work(run)
        shop.clock.moment += timedelta(minutes=10)
    report = await shop.reports.get("report-1")
    assert report is not None
    assert (report.state, report.failure) == (ReportState.FAILED, "SERVICE_UNAVAILABLE")
    assert await replica.claim(1) == []


async def test_a_report_whose_every_run_dies_does_not_keep_the_others_waiting(shop: Shop) -> None:
    world = healthy(3)
    await shop.load(world)
    await shop.ask()
    replica = shop.replica(world.ledgers)
    for _ in range(MOST_TRIES):
        assert await replica.claim(1)
        shop.clock.moment += LEASE + SECOND
    (run,) = await replica.claim(1)
    await replica.work(run)
    report = await shop.reports.get("report-1")
    assert report is not None
    assert report.state is ReportState.FAILED
    await shop.report(world.ledgers, report_id="report-2")


async def test_the_same_range_asked_for_again_while_it_runs_is_the_same_report(shop: Shop) -> None:
    world = healthy(1)
    await shop.load(world)
    assert (await shop.ask(report_id="a")).report_id == "a"
    assert (await shop.ask(report_id="b")).report_id == "a"
    replica = shop.replica(world.ledgers)
    (run,) = await replica.claim(1)
    await replica.work(run)
    assert (await shop.ask(report_id="c")).report_id == "c"


async def test_the_schedule_asks_every_hour_from_where_the_report_before_ended(shop: Shop) -> None:
    world = healthy(1)
    await shop.load(world)
    await fetch(shop.database.superuser_url, "UPDATE reconciliation_schedule SET next_time = '-infinity'")
    replica = shop.replica(world.ledgers)
    ends = []
    for _ in range(3):
        (run,) = await replica.claim(1)
        assert await shop.replica(world.ledgers).claim(1) == []
        ends.append((run.span.start, run.span.end))
        await replica.work(run)
        assert await replica.claim(1) == []
        shop.clock.moment += HOUR
    grace = Limits().grace
    assert [end for _, end in ends] == [NOW - grace, NOW + HOUR - grace, NOW + 2 * HOUR - grace]
    assert [start for start, _ in ends[1:]] == [end - HOUR for _, end in ends[:2]]


async def test_a_finished_report_is_told_to_audit_once(shop: Shop) -> None:
    world = healthy(1)
    await shop.load(world)
    await shop.report(world.ledgers)
    rows = await fetch(shop.database.superuser_url, "SELECT subject FROM outbox")
    assert [row["subject"] for row in rows] == ["audit.recorded"]


async def test_the_balance_is_explained_to_the_cent(shop: Shop) -> None:
    world, clock = World(), shop.clock
    ledgers = world.ledgers
    await shop.load(world)
    world.supplier_order("S-before", "kf1-before", NOW - 10 * MINUTE)
    ledgers.told = TheirBalance(100_000, NOW)
    first = await shop.report(ledgers, report_id="r1")
    assert first.balance is not None
    assert (first.balance.opening, first.balance.closing, first.balance.unexplained) == (None, 100_000, 0)

    # An hour with two orders, a top-up, and money back for an order of before.
    clock.moment += HOUR
    now = clock.now()
    world.supplier_order("S-1", "kf1-1", now - 20 * MINUTE, charged=749)
    world.supplier_order("S-2", "kf1-2", now - 19 * MINUTE, charged=1)
    world.suppliers("S-before", refunded=CHARGED)
    ledgers.added.append(TheirTopUp("top-1", 5_000, now - 5 * MINUTE))
    ledgers.told = TheirBalance(100_000 - 749 - 1 + CHARGED + 5_000, now)
    second = (await shop.report(ledgers, report_id="r2")).balance
    assert second is not None
    assert (second.opening, second.top_ups, second.charges) == (100_000, 5_000, 750)
    assert (second.refunds, second.unexplained) == (CHARGED, 0)

    # Three cents are gone: told until somebody explains them.
    clock.moment += HOUR
    left = ledgers.told.minor_units - 3
    for number in (3, 4):
        ledgers.told = TheirBalance(left, clock.now())
        report = await shop.report(ledgers, report_id=f"r{number}")
        assert report.balance is not None
        assert (report.balance.unexplained, report.differences["BALANCE_UNEXPLAINED"]) == (-3, 1)
        clock.moment += HOUR
    ledgers.added.append(TheirTopUp("top-2", -3, NOW + HOUR))
    ledgers.told = TheirBalance(left, clock.now())
    last = (await shop.report(ledgers, report_id="r5")).balance
    assert last is not None
    assert (last.top_ups, last.unexplained) == (-3, 0)


async def test_orders_placed_while_the_balance_is_read_are_in_one_report_or_the_next(shop: Shop) -> None:
    world, clock = World(), shop.clock
    await shop.load(world)
    world.ledgers.told = TheirBalance(100_000, NOW)
    await shop.report(world.ledgers, report_id="r1")
    clock.moment += HOUR
    # Ten orders around the reading by a clock that goes 15 s ahead of ours: seven are in the told balance.
    for number in range(10):
        at = clock.now() + (number - 4) * 5 * SECOND
        world.supplier_order(f"S-{number}", f"kf1-{number}", at, charged=100 + number)
    charged = sum(100 + number for number in range(7))
    world.ledgers.told = TheirBalance(100_000 - charged, clock.now())
    second = (await shop.report(world.ledgers, report_id="r2")).balance
    assert second is not None
    assert (second.charges, second.unexplained) == (charged, 0)
    clock.moment += HOUR
    world.ledgers.told = TheirBalance(100_000 - sum(range(100, 110)), clock.now())
    third = (await shop.report(world.ledgers, report_id="r3")).balance
    assert third is not None
    assert (third.charges, third.unexplained) == (107 + 108 + 109, 0)


async def test_money_paid_back_long_after_the_order_is_found(shop: Shop) -> None:
    world, clock = World(), shop.clock
    world.order("returned", NOW - 10 * MINUTE, state="CANCELED")
    world.ours("purchase", "kf1-returned", state="RETURNING", state_time=NOW + timedelta(days=3))
    await shop.load(world)
    world.ledgers.told = TheirBalance(100_000, NOW)
    await shop.report(world.ledgers, report_id="r1")
    clock.moment += timedelta(days=3)
    world.ledgers.told = TheirBalance(100_000, clock.now())
    await shop.report(world.ledgers, report_id="r2")
    clock.moment += timedelta(days=1)
    world.suppliers("S-returned", refunded=CHARGED)
    world.ledgers.told = TheirBalance(100_000 + CHARGED, clock.now())
    last = (await shop.report(world.ledgers, report_id="r3")).balance
    assert last is not None
    assert (last.refunds, last.unexplained) == (CHARGED, 0)


async def test_many_orders_are_compared_in_seconds(shop: Shop) -> None:
    count = 100_000 if FULL else 3_000
    world = healthy(count)
    for kind, spoil in SPOILS.items():
        spoil(world, f"x-{kind.value}")
    world.ledgers.page = 1000
    await shop.load(world)
    begin = time.monotonic()
    report = await shop.report(world.ledgers)
    seconds = time.monotonic() - begin
    print(f"{count} orders: {seconds:.1f} s")  # noqa: T201 # shown by -rP
    assert report.differences == dict.fromkeys((kind.value for kind in SPOILS), 1)
    if FULL:
        assert seconds < 60, f"{seconds:.1f} s"
