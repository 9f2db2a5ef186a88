"""The schedule of calls in PostgreSQL: one row that all replicas move forward, by the database's clock (ADR 8)."""

from datetime import timedelta

from chassis.database import Database
from sqlalchemy import text

from kinguin_gateway.ports.pace import Slots

# What is given out stays below the limit: a replica that is short of CPU begins calls late, and so closer together.
HEADROOM = 0.9
# One statement, so that two replicas never reserve the same moment: the second waits for the row and reads it anew.
_RESERVE = text(
    """
    UPDATE call_schedule AS schedule
    SET next_time = place.begin_time + place.granted * CAST(:interval AS interval)
    FROM (
        SELECT begin_time, now_time, least(
            :wanted,
            greatest(0, 1 + floor(extract(epoch FROM now_time + CAST(:patience AS interval) - begin_time) / :seconds))
        )::integer AS granted
        FROM (
            SELECT greatest(next_time, clock_timestamp()) AS begin_time, clock_timestamp() AS now_time
            FROM call_schedule
            FOR UPDATE
        ) AS locked
    ) AS place
    RETURNING place.granted, place.begin_time - place.now_time AS first
    """
)
_HOLD = text("UPDATE call_schedule SET next_time = greatest(next_time, clock_timestamp() + CAST(:wait AS interval))")


class PostgresSchedule:
    """Implements `kinguin_gateway.ports.pace.Schedule`."""

    def __init__(self, database: Database, *, per_second: float, patience: timedelta) -> None:
        self._database = database
        self._interval = timedelta(seconds=1 / (HEADROOM * per_second))
        self._patience = patience

    async def reserve(self, wanted: int) -> Slots:
        """See the port."""
        values = {
            "wanted": wanted,
            "interval": self._interval,
            "seconds": self._interval.total_seconds(),
            "patience": self._patience,
        }
        async with self._database.transaction("kinguin_gateway.reserve") as connection:
            row = (await connection.execute(_RESERVE, values)).one()
        return Slots(row.granted, max(row.first, timedelta(0)), self._interval)

    async def hold(self, wait: timedelta) -> None:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.hold") as connection:
            await connection.execute(_HOLD, {"wait": wait})
