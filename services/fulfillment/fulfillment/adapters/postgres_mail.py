"""The one mail of each order."""

from datetime import datetime, timedelta

from chassis.database import notify
from sqlalchemy import case, select, update
from sqlalchemy.dialects.postgresql import insert

from fulfillment.adapters.connection import CHANGED, DUE, OnConnection
from fulfillment.adapters.tables import MAIL, ORDER
from fulfillment.domain.model import OrderId


class PostgresMailRows(OnConnection):
    """The rows of mails, as the work on orders writes them."""

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        """Let the order's one mail be sent."""
        statement = insert(MAIL).values(order_id=order_id, run_at=now, tries=0, failure="")
        await self._connection.execute(statement.on_conflict_do_nothing(index_elements=["order_id"]))
        notify(self._connection, DUE)

    async def want_mail_again(
        self, order_id: OrderId, *, now: datetime, most: int, within: timedelta
    ) -> datetime | None:
        """Let a mail be sent again, unless it was wanted again that often already; then return when it may be."""
        statement = select(MAIL.c.again_times).where(MAIL.c.order_id == order_id).with_for_update()
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            raise LookupError("no mail was ever wanted for the order")
        recent = [time for time in row.again_times if time > now - within]
        if len(recent) >= most:
            again: datetime = recent[-most] + within
            return again
        await self._connection.execute(
            update(MAIL)
            .where(MAIL.c.order_id == order_id)
            .values(
                run_at=now,
                lease_until=None,
                claim=MAIL.c.claim + 1,
                tries=0,
                failure="",
                again_times=[*recent, now],
            )
        )
        notify(self._connection, DUE)
        return None

    async def mail_done(self, order_id: OrderId, claim: int, *, now: datetime) -> None:
        """Note that the mail server took the mail; when it is sent next is said by its present claim only."""
        # The order first, as by everybody who has both.
        await self._connection.execute(
            update(ORDER).where(ORDER.c.order_id == order_id).values(mail_time=now, version=ORDER.c.version + 1)
        )
        await self._connection.execute(
            update(MAIL)
            .where(MAIL.c.order_id == order_id)
            .values(
                run_at=case((MAIL.c.claim == claim, None), else_=MAIL.c.run_at),
                lease_until=case((MAIL.c.claim == claim, None), else_=MAIL.c.lease_until),
                send_time=now,
                failure="",
            )
        )
        notify(self._connection, CHANGED, order_id)
