"""The one row that says whether we buy, and whether the database is still the one that we knew."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from chassis.outbox import Outbox
from sqlalchemy import ColumnElement, Text, exists, func, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import account_audited
from kinguin_gateway.adapters.purchase_rows import NOW
from kinguin_gateway.adapters.tables import BUYING, PURCHASE
from kinguin_gateway.domain.purchase import PurchaseState
from kinguin_gateway.domain.switching import CAUTION, PauseCause
from kinguin_gateway.metrics import DATABASE_FORGOT

logger = structlog.get_logger(__name__)

_B = BUYING.c
# A promoted replica and a restored base backup have a new timeline; what pg_dump wrote is read into another server,
# another database of the same one, or at least another table. A replica that is not promoted has no timeline to write
# to, and what it says here is noted nowhere, because nothing can be.
_INCARNATION: ColumnElement[str] = literal_column(
    """
    CASE WHEN pg_is_in_recovery() THEN 'in recovery' ELSE concat_ws(
        '/',
        (SELECT system_identifier FROM pg_control_system()),
        substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        CAST(to_regclass('purchase') AS oid)
    ) END
    """,
    Text,
)
PARKED = PURCHASE.c.park_time.is_not(None)
_LINE = PURCHASE.alias("line")
ANYBODY_WAITS = or_(
    exists(select(1).where(_B.cause != PauseCause.NONE.value)),
    exists(select(1).where(_LINE.c.park_time.is_not(None))),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How buying stands. `forgotten_deadline` is the latest send deadline of an attempt that was forgotten."""

    cause: PauseCause
    others_wait: bool
    now: datetime
    caution_end: datetime
    forgotten_deadline: datetime

    @property
    def forgot(self) -> bool:
        """Whether an id that is new to us may have been sent before."""
        return self.now < self.caution_end


async def read_standing(connection: AsyncConnection, outbox: Outbox, *, window: timedelta) -> Standing:
    """Read the row, and note in the same transaction where the database is another than before."""
    statement = select(
        *_B, _INCARNATION.label("present"), exists(select(1).where(PARKED)).label("others_wait"), NOW.label("now")
    )
    row = (await connection.execute(statement)).one()
    if row.present != row.incarnation:
        await _note_incarnation(connection, outbox, known=row.incarnation, present=row.present, window=window)
        row = (await connection.execute(statement)).one()
    return Standing(PauseCause(row.cause), row.others_wait, row.now, row.caution_end, row.doubt_end)


async def _note_incarnation(
    connection: AsyncConnection, outbox: Outbox, *, known: str, present: str, window: timedelta
) -> None:
    # Everything that was forgotten was committed before now, and so had to be sent before now and one window.
    forgot = {"doubt_end": NOW + window, "caution_end": NOW + CAUTION} if known else {}
    statement = update(BUYING).where(_B.incarnation == known).values(incarnation=present, **forgot).returning(NOW)
    time = (await connection.execute(statement)).scalar_one_or_none()
    if not known or time is None:
        return
    # What was not sent, or settled, as far as we remember, may have been sent since.
    remembered = {"state": PurchaseState.IN_DOUBT.value, "park_time": None, "lease_end": None, "next_look_time": NOW}
    await connection.execute(
        update(PURCHASE)
        .where(PURCHASE.c.state.in_([PurchaseState.INTENDED.value, PurchaseState.IN_DOUBT.value]))
        .values(send_deadline=func.greatest(PURCHASE.c.send_deadline, NOW + window), **remembered)
    )
    DATABASE_FORGOT.inc()
    logger.error("database was failed over or restored, purchases that are new to it are searched for first")
    details = {"before": known, "now": present}
    event = account_audited("database.forgot", key=present, actor=None, request_id="", details=details, time=time)
    await outbox.enqueue(connection, event)


async def pause_for(connection: AsyncConnection, outbox: Outbox, *, cause: PauseCause, reason: str) -> None:
    """Stop buying for a cause of the supplier's, unless it is stopped already."""
    statement = (
        update(BUYING)
        .where(_B.cause == PauseCause.NONE.value)
        .values(cause=cause.value, reason=reason, change_time=func.now())
        .returning(NOW)
    )
    time = (await connection.execute(statement)).scalar_one_or_none()
    if time is None:
        return
    logger.error("buying is paused", cause=cause.value, why=reason)
    details = {"cause": cause.value, "reason": reason}
    event = account_audited(
        "buying.paused", key=time.isoformat(), actor=None, request_id="", details=details, time=time
    )
    await outbox.enqueue(connection, event)
