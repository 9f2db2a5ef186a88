"""PostgreSQL NOTIFY as a hint between replicas: work or news is there now. Losing one costs a wait, nothing else."""

import asyncio
from collections.abc import Callable, Mapping

import asyncpg
import structlog

logger = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 15.0
RETRY_SECONDS = 1.0


class NotificationListener:
    """Keeps one connection that listens, and calls back with each payload. After a gap it calls with an empty one."""

    def __init__(self, url: str, callbacks: Mapping[str, Callable[[str], None]]) -> None:
        self._url = url
        self._callbacks = dict(callbacks)

    async def run(self) -> None:
        """Listen until canceled; reconnect for as long as it takes."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                logger.warning("listening for notifications was interrupted")
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS)
        try:
            for channel in self._callbacks:
                await connection.add_listener(channel, self._dispatch)
            for callback in self._callbacks.values():
                # What was notified while nobody listened is gone: look once.
                callback("")
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                await connection.execute("SELECT 1", timeout=CONNECT_SECONDS)
        finally:
            await connection.close(timeout=CONNECT_SECONDS)

    def _dispatch(self, _connection: object, _process: int, channel: str, payload: object) -> None:
        self._callbacks[channel](str(payload))
