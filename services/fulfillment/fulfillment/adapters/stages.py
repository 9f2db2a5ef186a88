"""What one run was told, and its comparison: staged rows, bounded statements, candidates and differences."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from chassis.clock import Clock
from chassis.database import Database
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.compared import BETWEEN, LOOKED_UP, Comparison, Source
from fulfillment.adapters.comparisons_buying import BUYING
from fulfillment.adapters.comparisons_keys import KEYS
from fulfillment.adapters.comparisons_money import MONEY
from fulfillment.domain.reconciliation import ASKS, Kind, Limits, Range, known_kind
from fulfillment.ports.reconciliation import (
    LEASE,
    Candidate,
    Difference,
    LeaseLost,
    Looked,
    Run,
    TheirKey,
    TheirOrder,
    TheirPurchase,
)

COMPARISONS = (*MONEY, *BUYING, *KEYS)
# Rows of one statement: each is met by a few look-ups in indexes, so that a slice takes tens of milliseconds.
SLICE = 5_000
CONFIRM_BATCH = 1_000
# Rows that one statement deletes: few enough to be done well within a statement's time.
CLEAR_BATCH = 5_000

_LIVE = "SELECT run_id FROM reconciliation WHERE state = 'RUNNING' AND run_id IS NOT NULL"
_KEPT = "SELECT run_id FROM reconciliation WHERE state <> 'FAILED' AND run_id IS NOT NULL"
# In the order of the key, so that no batch has to step over what those before it deleted.
_CLEAR = tuple(
    text(f"""
        WITH batch AS (
            SELECT {key} AS name FROM {table} WHERE run_id = :run AND {key} > :after ORDER BY {key} LIMIT {CLEAR_BATCH}
        ), gone AS (
            DELETE FROM {table} t USING batch WHERE t.run_id = :run AND t.{key} = batch.name RETURNING batch.name
        ) SELECT max(name) FROM gone
    """)  # noqa: S608 # constants
    for table, key in (
        ("stage_purchase", "external_id"),
        ("stage_surplus", "supplier_order_id"),
        ("stage_supplier_order", "supplier_order_id"),
        ("stage_key", "key_id"),
    )
)
_HOLD = text(
    "UPDATE reconciliation SET run_at = :until WHERE report_id = :report_id AND run_id = :run AND state = 'RUNNING'"
)
# A staged row that is there already is replaced, all but its time: what it is compared by must not move.
_PUT_PURCHASES = text("""
    INSERT INTO stage_purchase SELECT :run, * FROM unnest(
        CAST(:a AS text[]), CAST(:b AS text[]), CAST(:c AS text[]), CAST(:d AS text[]), CAST(:e AS text[]),
        CAST(:f AS int[]), CAST(:g AS bigint[]), CAST(:h AS text[]), CAST(:i AS timestamptz[])
    ) ON CONFLICT (run_id, external_id) DO UPDATE SET
        order_id = excluded.order_id, supplier_order_id = excluded.supplier_order_id, state = excluded.state,
        supplier_state = excluded.supplier_state, quantity = excluded.quantity, charged = excluded.charged,
        return_state = excluded.return_state
""")
_PUT_SURPLUS = text("""
    INSERT INTO stage_surplus SELECT :run, * FROM unnest(
        CAST(:a AS text[]), CAST(:b AS text[]), CAST(:c AS text[])
    ) ON CONFLICT (run_id, supplier_order_id) DO UPDATE SET return_state = excluded.return_state
""")
_PUT_ORDERS = text("""
    INSERT INTO stage_supplier_order SELECT :run, * FROM unnest(
        CAST(:a AS text[]), CAST(:b AS text[]), CAST(:c AS text[]), CAST(:d AS bigint[]), CAST(:e AS bigint[]),
        CAST(:f AS timestamptz[])
    ) ON CONFLICT (run_id, supplier_order_id) DO UPDATE SET
        external_id = excluded.external_id, state = excluded.state, charged = excluded.charged,
        refunded = excluded.refunded
""")
_PUT_KEYS = text("""
    INSERT INTO stage_key SELECT :run, * FROM unnest(
        CAST(:a AS text[]), CAST(:b AS text[]), CAST(:c AS text[]), CAST(:d AS timestamptz[]),
        CAST(:e AS timestamptz[])
    ) ON CONFLICT (run_id, key_id) DO UPDATE SET
        order_id = excluded.order_id, state = excluded.state, open_time = excluded.open_time
""")
_INTO_CANDIDATES = """
    INSERT INTO stage_candidate (run_id, kind, subject, order_id, external_id, supplier_order_id, key_id)
    SELECT :run, :kind, f.subject, f.order_id, f.external_id, f.supplier_order_id, f.key_id
    FROM ({body}) AS f (subject, order_id, external_id, supplier_order_id, key_id, payment_id, expected, found)
    ON CONFLICT DO NOTHING
"""
_INTO_DIFFERENCES = """
    INSERT INTO reconciliation_difference
        (run_id, kind, subject, order_id, external_id, supplier_order_id, key_id, payment_id, expected, found)
    SELECT :run, :kind, f.*
    FROM ({body}) AS f (subject, order_id, external_id, supplier_order_id, key_id, payment_id, expected, found)
    ON CONFLICT DO NOTHING
"""
# Statistics of staged rows are always stale. A slice is small, and index look-ups are right for it whatever they say.
PLAN = tuple(
    text(f"SET LOCAL enable_{way} = off") for way in ("hashjoin", "mergejoin", "seqscan", "material", "memoize")
)


def _one_by_one(rows: Iterable[Sequence[Any]], names: str) -> dict[str, list[Any]]:
    columns = list(zip(*rows, strict=True))
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _slice_scope(source: Source) -> str:
    scope = f"{source.alias}.{source.time} >= :begin AND {source.alias}.{source.time} < :end"
    return f"{source.alias}.run_id = :run AND {scope}" if source.staged else scope


def _subject_scope(comparison: Comparison) -> str:
    pair = LOOKED_UP.get(comparison.key)
    if pair is None:
        looked_up = f"{comparison.key} = ANY(CAST(:subjects AS text[]))"
    else:
        between = f"chr({ord(BETWEEN)})"
        looked_up = (
            f"{pair} IN (SELECT split_part(n, {between}, 1), split_part(n, {between}, 2)"  # noqa: S608 # constants
            " FROM unnest(CAST(:subjects AS text[])) n)"
        )
    return f"{_slice_scope(comparison.source)} AND {looked_up}"


def _statement(into: str, comparison: Comparison, scope: str) -> TextClause:
    return text(into.replace("{body}", comparison.body.replace("{scope}", scope)))


_FIRST_LOOK = {each: _statement(_INTO_CANDIDATES, each, _slice_scope(each.source)) for each in COMPARISONS}
_SECOND_LOOK = {each: _statement(_INTO_DIFFERENCES, each, _subject_scope(each)) for each in COMPARISONS}


def boundary(source: Source) -> TextClause:
    """Return the statement that finds the time of the row after a slice."""
    run = "run_id = :run AND " if source.staged else ""
    return text(
        f"SELECT {source.time} FROM {source.table} WHERE {run}{source.time} >= :begin AND {source.time} < :end"  # noqa: S608 # constants
        f" ORDER BY {source.time} OFFSET {SLICE} LIMIT 1"
    )


def slice_end(span: Range, place: datetime | None) -> datetime:
    """Return where a slice ends: between two times, so that no row is in two."""
    if place is None:
        return span.end
    # So many rows of one moment are a slice of their own.
    return max(place, span.start + timedelta(microseconds=1))


class PostgresStage:
    """Staged rows of runs, in tables that a crash of the server empties: `stage_run` tells whether that happened."""

    def __init__(self, database: Database, *, clock: Clock, limits: Limits) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits

    @asynccontextmanager
    async def holding(self, run: Run, step: str) -> AsyncIterator[AsyncConnection]:
        """Run a block in one transaction, a step of a report, that only the report's present run may commit."""
        async with self._database.transaction(f"fulfillment.report.{step}") as connection:
            values = {"until": self._clock.now() + LEASE, "report_id": run.report_id, "run": run.run_id}
            if (await connection.execute(_HOLD, values)).rowcount != 1:
                raise LeaseLost(run.report_id)
            yield connection

    async def put_purchases(self, run: Run, page: Sequence[TheirPurchase]) -> None:
        """Keep purchases for this run."""
        if page:
            async with self.holding(run, "put_purchases") as connection:
                await _put_purchases(connection, run, page)

    async def put_orders(self, run: Run, page: Sequence[TheirOrder], *, since: datetime) -> None:
        """Keep supplier orders for this run."""
        if page:
            async with self.holding(run, "put_orders") as connection:
                await _put_orders(connection, run, page, since)

    async def put_keys(self, run: Run, page: Sequence[TheirKey], *, since: datetime) -> None:
        """Keep keys for this run."""
        if page:
            async with self.holding(run, "put_keys") as connection:
                await _put_keys(connection, run, page, since)

    async def compare(self, run: Run, *, until: datetime) -> None:
        """Compare everything slice by slice."""
        for (source, age), comparisons in _by_slice(COMPARISONS).items():
            span = self._span(run, age, until)
            begin = span.start
            while begin < span.end:
                end = await self._slice_end(run, source, Range(begin, span.end))
                async with self.holding(run, "compare") as connection:
                    for plan in PLAN:
                        await connection.execute(plan)
                    for comparison in comparisons:
                        values = {"run": run.run_id, "kind": comparison.kind.value, "begin": begin, "end": end}
                        await _execute(connection, _FIRST_LOOK[comparison], values, cutoff=until, first=True)
                begin = end
        await self._check_staged(run)

    async def candidates(self, run: Run, *, after: tuple[str, str] | None, limit: int) -> Sequence[Candidate]:
        """Return candidates that somebody must be asked about."""
        statement = text("""
            SELECT kind, subject, order_id, external_id, supplier_order_id, key_id FROM stage_candidate
            WHERE run_id = :run AND kind = ANY(CAST(:kinds AS text[])) AND (kind, subject) > (:kind, :subject)
            ORDER BY kind, subject LIMIT :limit
        """)
        kind, subject = after or ("", "")
        values = {"run": run.run_id, "kinds": [each.value for each in ASKS], "kind": kind, "subject": subject}
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement, {**values, "limit": limit})).all()
        return [Candidate(Kind(row.kind), *row[1:]) for row in rows]

    async def look_again(self, run: Run, looked: Looked) -> None:
        """Replace what was told before by what was found now."""
        there = [each for each in looked.purchases.values() if each is not None]
        keys = [each for each in looked.keys.values() if each is not None]
        gone = {
            "DELETE FROM stage_purchase WHERE run_id = :run AND external_id = ANY(CAST(:gone AS text[]))": [
                name for name, each in looked.purchases.items() if each is None
            ],
            "DELETE FROM stage_key WHERE run_id = :run AND key_id = ANY(CAST(:gone AS text[]))": [
                name for name, each in looked.keys.items() if each is None
            ],
            "DELETE FROM stage_supplier_order WHERE run_id = :run AND supplier_order_id = ANY(CAST(:gone AS text[]))": (
                looked.gone_orders
            ),
        }
        async with self.holding(run, "look_again") as connection:
            for statement, names in gone.items():
                if names:
                    await connection.execute(text(statement), {"run": run.run_id, "gone": list(names)})
            await _put_purchases(connection, run, there)
            await _put_orders(connection, run, looked.orders, run.span.start)
            await _put_keys(connection, run, keys, run.span.start)

    async def confirm(self, run: Run, *, until: datetime) -> None:
        """Compare the candidates once more."""
        for kind in Kind:
            after = ""
            while subjects := await self._subjects(run, kind, after):
                async with self.holding(run, "confirm") as connection:
                    for plan in PLAN:
                        await connection.execute(plan)
                    for comparison in (each for each in COMPARISONS if each.kind is kind):
                        span = self._span(run, comparison.age, until)
                        values: dict[str, Any] = {"run": run.run_id, "kind": kind.value, "subjects": subjects}
                        values |= {"begin": span.start, "end": span.end}
                        await _execute(connection, _SECOND_LOOK[comparison], values, cutoff=until, first=False)
                after = subjects[-1]
        async with self.holding(run, "note_returns") as connection:
            await connection.execute(
                text("""
                    UPDATE reconciliation_difference d SET mended = true FROM stage_surplus w
                    WHERE d.run_id = :run AND d.kind = 'BOUGHT_TWICE' AND w.run_id = d.run_id
                      AND w.supplier_order_id = d.supplier_order_id
                      AND w.return_state IN ('ASKED', 'ACCEPTED', 'RETURNED')
                """),
                {"run": run.run_id},
            )
        await self._check_staged(run)

    async def surplus(self, run: Run, *, since: datetime, after: int, limit: int) -> Sequence[Difference]:
        """Return orders bought too much that are young enough to go back, and that no row of ours holds for its own."""
        statement = text("""
            SELECT d.position, d.kind, d.order_id, d.external_id, d.supplier_order_id, d.key_id, d.payment_id,
                   d.expected, d.found, d.mended
            FROM reconciliation_difference d
            JOIN stage_supplier_order s ON s.run_id = d.run_id AND s.supplier_order_id = d.supplier_order_id
            WHERE d.run_id = :run AND d.kind = 'BOUGHT_TWICE' AND NOT d.mended AND s.create_time > :since
              AND d.position > :after
              AND NOT EXISTS (
                  SELECT FROM purchase u
                  WHERE u.external_id = d.external_id AND u.supplier_order_id = d.supplier_order_id
              )
            ORDER BY d.position LIMIT :limit
        """)
        values = {"run": run.run_id, "since": since, "after": after, "limit": limit}
        async with self._database.transaction() as connection:
            return [difference_of(row) for row in await connection.execute(statement, values)]

    async def mended(self, run: Run, position: int) -> None:
        """Note that a difference was mended."""
        statement = text(
            "UPDATE reconciliation_difference SET mended = true WHERE run_id = :run AND position = :position"
        )
        async with self.holding(run, "mended") as connection:
            await connection.execute(statement, {"run": run.run_id, "position": position})

    async def clear(self) -> None:
        """Delete what is staged for any run but one that may be at work, and the differences of runs that died."""
        dead = text(f"SELECT run_id FROM stage_run WHERE run_id NOT IN ({_LIVE})")  # noqa: S608 # constants
        async with self._database.transaction() as connection:
            runs = list((await connection.execute(dead)).scalars())
        for run_id in runs:
            for statement in _CLEAR:
                after: str | None = ""
                while after is not None:
                    async with self._database.transaction("fulfillment.report.clear") as connection:
                        for plan in PLAN:
                            await connection.execute(plan)
                        after = (await connection.execute(statement, {"run": run_id, "after": after})).scalar_one()
        for table, kept in (("stage_candidate", _LIVE), ("stage_run", _LIVE), ("reconciliation_difference", _KEPT)):
            statement = text(
                f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 # constants
                f"SELECT ctid FROM {table} WHERE run_id NOT IN ({kept}) LIMIT {CLEAR_BATCH}))"
            )
            while True:
                async with self._database.transaction("fulfillment.report.clear") as connection:
                    if (await connection.execute(statement)).rowcount < CLEAR_BATCH:
                        break

    def _span(self, run: Run, age: str, until: datetime) -> Range:
        # What has an age has passed its grace long ago, but for that of the report's end.
        return run.span.until(until).shifted(getattr(self._limits, age) if age else timedelta(0))

    async def _slice_end(self, run: Run, source: Source, span: Range) -> datetime:
        values = {"begin": span.start, "end": span.end} | ({"run": run.run_id} if source.staged else {})
        async with self._database.transaction() as connection:
            place = (await connection.execute(boundary(source), values)).scalar_one_or_none()
        return slice_end(span, place)

    async def _subjects(self, run: Run, kind: Kind, after: str) -> list[str]:
        statement = text("""
            SELECT subject FROM stage_candidate WHERE run_id = :run AND kind = :kind AND subject > :after
            ORDER BY subject LIMIT :limit
        """)
        values = {"run": run.run_id, "kind": kind.value, "after": after, "limit": CONFIRM_BATCH}
        async with self._database.transaction() as connection:
            return list((await connection.execute(statement, values)).scalars())

    async def _check_staged(self, run: Run) -> None:
        async with self._database.transaction() as connection:
            statement = text("SELECT 1 FROM stage_run WHERE run_id = :run")
            if (await connection.execute(statement, {"run": run.run_id})).scalar_one_or_none() is None:
                raise LeaseLost(run.report_id)


def _by_slice(comparisons: Sequence[Comparison]) -> dict[tuple[Source, str], list[Comparison]]:
    found: dict[tuple[Source, str], list[Comparison]] = {}
    for comparison in comparisons:
        found.setdefault((comparison.source, comparison.age), []).append(comparison)
    return found


async def _execute(connection: AsyncConnection, statement: TextClause, values: dict[str, Any], **more: object) -> None:
    wanted = statement._bindparams  # noqa: SLF001 # a parameter that a statement does not name is refused
    await connection.execute(statement, {name: value for name, value in {**values, **more}.items() if name in wanted})


async def _put_purchases(connection: AsyncConnection, run: Run, page: Sequence[TheirPurchase]) -> None:
    rows = {
        each.external_id: (
            each.external_id,
            each.order_id,
            each.supplier_order_id,
            each.state,
            each.supplier_state,
            each.quantity,
            each.charged,
            each.return_state,
            each.create_time,
        )
        for each in page
    }
    if rows:
        await connection.execute(_PUT_PURCHASES, {"run": run.run_id, **_one_by_one(rows.values(), "abcdefghi")})
    surplus = {name: (name, each.external_id, state) for each in page for name, state in each.surplus.items()}
    if surplus:
        await connection.execute(_PUT_SURPLUS, {"run": run.run_id, **_one_by_one(surplus.values(), "abc")})


async def _put_orders(connection: AsyncConnection, run: Run, page: Sequence[TheirOrder], since: datetime) -> None:
    rows = {
        each.supplier_order_id: (
            each.supplier_order_id,
            each.external_id,
            each.state,
            each.charged,
            each.refunded,
            each.create_time or since,
        )
        for each in page
    }
    if rows:
        await connection.execute(_PUT_ORDERS, {"run": run.run_id, **_one_by_one(rows.values(), "abcdef")})


async def _put_keys(connection: AsyncConnection, run: Run, page: Sequence[TheirKey], since: datetime) -> None:
    rows = {
        each.key_id: (each.key_id, each.order_id, each.state, each.seal_time or since, each.open_time) for each in page
    }
    if rows:
        await connection.execute(_PUT_KEYS, {"run": run.run_id, **_one_by_one(rows.values(), "abcde")})


def difference_of(row: Any) -> Difference:
    """Read a difference."""
    return Difference(row.position, known_kind(row.kind), *row[2:])
