"""Apply a service's migrations: `python -m chassis.migrate FOLDER`, as the role that owns the database.

The folder holds `versions/` only; how they are run is the same for all. They run in one transaction that gives up a
lock after 4 s rather than holding up the service beside it, and take turns with any other migrator through an
advisory lock.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.database import engine_url
from chassis.settings import DatabaseSettings, load_or_exit

CONNECT_SECONDS = 10.0
STATEMENT_MILLISECONDS = 60_000
LOCK_MILLISECONDS = 4_000
_TURN = 0x6B66_6D69


def _upgrade(connection: Connection, folder: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 # what alembic's own `upgrade` command calls

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=None)
        with environment.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
            environment.run_migrations()


async def migrate(url: str, folder: Path) -> None:
    """Bring the database to the newest revision; doing it again changes nothing."""
    engine = create_async_engine(
        engine_url(url),
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "server_settings": {
                "application_name": "keyferry-migrate",
                "statement_timeout": str(STATEMENT_MILLISECONDS),
                "lock_timeout": str(LOCK_MILLISECONDS),
            },
        },
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, folder)
    finally:
        await engine.dispose()


def main() -> None:
    """Read DATABASE_URL and migrate; the folder is the only argument."""
    if len(sys.argv) != 2:  # noqa: PLR2004 # program and folder
        sys.exit("usage: python -m chassis.migrate FOLDER")
    settings = load_or_exit(DatabaseSettings)
    asyncio.run(migrate(settings.database_url.get_secret_value(), Path(sys.argv[1]).resolve()))


if __name__ == "__main__":
    main()
