"""Statements that find entries. Each reads about as much as it returns, however large the log is.

A time is turned into a sequence first: times never step back along the log, so that halving finds the place with a
look at some two dozen entries among ten million, and no index on time has to be kept.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Executable, Select, Text, bindparam, literal_column, select, text, union_all
from sqlalchemy.sql.elements import TextClause

from audit.adapters.tables import ENTRY
from audit.domain.entry import format_time
from audit.domain.filters import Filters

# An entry that somebody deleted must not stop the search: the next one speaks for it.
_FIRST_AT = """
    WITH RECURSIVE halving (low, high) AS (
        SELECT 0::bigint, (SELECT coalesce(max(sequence), -1) + 1 FROM entry)
        UNION ALL
        SELECT
            CASE WHEN middle.earlier THEN middle.place + 1 ELSE halving.low END,
            CASE WHEN middle.earlier THEN halving.high ELSE middle.place END
        FROM halving
        CROSS JOIN LATERAL (
            SELECT
                (halving.low + halving.high) / 2 AS place,
                coalesce(
                    (
                        SELECT (canonical::jsonb ->> 'time') COLLATE "C" < :moment
                        FROM entry
                        WHERE sequence >= (halving.low + halving.high) / 2
                        ORDER BY sequence
                        LIMIT 1
                    ),
                    false
                ) AS earlier
        ) AS middle
        WHERE halving.low < halving.high
    )
    SELECT low FROM halving WHERE low >= high
"""


def first_at_statement(moment: datetime) -> TextClause:
    """Return the statement for the sequence of the first entry at this time or later."""
    return text(_FIRST_AT).bindparams(bindparam("moment", format_time(moment), type_=Text))


def entries_statement(
    filters: Filters, *, actor_ids: Sequence[str], start: int, end: int | None, limit: int
) -> Executable:
    """Return the statement for a page of entries, from sequence `start` on and before `end`.

    Each form that the actor may have is searched by itself: one look-up in an index gives its entries by sequence,
    while a list of forms would have all of them read and sorted.
    """
    wanted: list[ColumnElement[bool]] = [ENTRY.c.sequence >= start]
    if end is not None:
        wanted.append(ENTRY.c.sequence < end)
    for column, value in (
        (ENTRY.c.order_id, filters.order_id),
        (ENTRY.c.key_id, filters.key_id),
        (ENTRY.c.action, "" if actor_ids else filters.action),
    ):
        if value:
            wanted.append(column == value)

    def page(*more: ColumnElement[bool]) -> Select[tuple[int, str, bytes]]:
        found = select(ENTRY.c.sequence, ENTRY.c.canonical, ENTRY.c.leaf_hash).where(*wanted, *more)
        return found.order_by(ENTRY.c.sequence).limit(limit)

    if not actor_ids:
        return page()
    forms = [page(_did(actor_id, filters.action)).subquery() for actor_id in actor_ids]
    united = union_all(*(select(form) for form in forms)).subquery()
    return select(united).order_by(united.c.sequence).limit(limit)


def _did(actor_id: str, action: str) -> ColumnElement[bool]:
    """Return the condition on an actor and perhaps an action, as the one text that both are indexed by."""
    if not action:
        return ENTRY.c.actor_id == actor_id
    return ENTRY.c.actor_id + literal_column("' '") + ENTRY.c.action == f"{actor_id} {action}"
