"""One service's own PostgreSQL database: short transactions, with limits on everything that could wait."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chassis.errors import ServiceUnavailable
from chassis.failpoints import failpoint

POOL_SIZE = 10
# Waiting longer for a connection means that the database is the bottleneck; say so instead of queueing.
POOL_WAIT_SECONDS = 5.0
CONNECT_SECONDS = 5.0
# Every statement of ours is an index look-up or a small batch; a longer one is a mistake or a sick database.
STATEMENT_MILLISECONDS = 5_000
LOCK_MILLISECONDS = 4_000
IDLE_IN_TRANSACTION_MILLISECONDS = 10_000

_AFTER_COMMIT = "chassis_after_commit"
_NOTIFICATIONS = "chassis_notifications"
_NOTIFY = text(
    "SELECT pg_notify(channel, payload) "
    "FROM unnest(CAST(:channels AS text[]), CAST(:payloads AS text[])) AS told(channel, payload)"
)


def engine_url(url: str) -> str:
    """Return a `postgresql://` URL in the form SQLAlchemy wants for asyncpg."""
    _, _, rest = url.partition("://")
    return f"postgresql+asyncpg://{rest}"


class Database:
    """Hands out transactions. A database that does not answer is ServiceUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, application: str, pool_size: int = POOL_SIZE) -> AsyncIterator["Database"]:
        """Make a pool; connections are opened when first needed."""
        engine = create_async_engine(
            engine_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_SECONDS,
            # Statement parameters in an error message would carry customers' data into logs.
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_SECONDS,
                "command_timeout": STATEMENT_MILLISECONDS / 1000 + 1,
                "server_settings": {
                    "application_name": application,
                    "statement_timeout": str(STATEMENT_MILLISECONDS),
                    "lock_timeout": str(LOCK_MILLISECONDS),
                    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MILLISECONDS),
                },
            },
        )
        try:
            yield cls(engine)
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator[AsyncConnection]:
        """Run the block in one transaction: committed when it ends, rolled back when it raises.

        After a lost connection during the commit itself nobody knows whether it took place; what is written must
        therefore be safe to write again. A block that writes names its `step`: the failpoints `<step>.before_commit`
        and `<step>.after_commit` are there even where the block returns from its middle.
        """
        try:
            async with self._engine.begin() as connection:
                callbacks: list[Callable[[], None]] = []
                notifications: dict[tuple[str, str], None] = {}
                connection.info.update({_AFTER_COMMIT: callbacks, _NOTIFICATIONS: notifications})
                yield connection
                if step:
                    await failpoint(f"{step}.before_commit")
                if notifications:
                    channels, payloads = zip(*notifications, strict=True)
                    await connection.execute(_NOTIFY, {"channels": channels, "payloads": payloads})
        except (InterfaceError, OperationalError, PoolTimeoutError, OSError) as error:
            raise ServiceUnavailable("the database does not answer") from error
        except DBAPIError as error:
            if error.connection_invalidated or _is_passing(error):
                raise ServiceUnavailable("the database does not answer") from error
            raise
        for callback in callbacks:
            callback()
        if step:
            await failpoint(f"{step}.after_commit")

    async def ping(self) -> None:
        """Raise ServiceUnavailable unless the database answers."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))


# Serialization failure, deadlock, lock not available, query canceled by a timeout, shutdown and start-up of the server,
# too many connections, a replica that is not promoted (yet).
_PASSING_STATES = frozenset({"40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300", "25006"})


def _is_passing(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in _PASSING_STATES


def after_commit(connection: AsyncConnection, callback: Callable[[], None]) -> None:
    """Call back once the connection's present transaction is committed; never when it is rolled back."""
    connection.info[_AFTER_COMMIT].append(callback)


def notify(connection: AsyncConnection, channel: str, payload: str = "") -> None:
    """Tell every listener of a channel, once the connection's present transaction commits; the same thing only once."""
    connection.info[_NOTIFICATIONS][channel, payload] = None


async def database_now(connection: AsyncConnection) -> datetime:
    """Return the database's clock at this moment: the one clock that all replicas share."""
    return (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()  # type: ignore[no-any-return] # timestamptz


class Wakeup:
    """Wakes a loop that sleeps between two looks at the database. Waking twice is waking once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the sleeper, or the next one to come."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Sleep until woken, at most this long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
