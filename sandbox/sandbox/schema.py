"""Makes databases, roles, tables and streams, as a process of its own: `python -m sandbox.schema`. Twice is once.

One process for all of it: loading the libraries takes longer than the work.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from asyncpg.exceptions import InvalidAuthorizationSpecificationError
from chassis.migrate import migrate
from chassis.settings import PostgresUrl, Settings, load_or_exit
from chassis.streams import apply_streams
from pydantic import Field, SecretStr

from sandbox.layout import MIGRATIONS, STREAMS
from sandbox.servers.postgres import database_url, provision, role_names


class SchemaSettings(Settings):
    """What the schema needs to be told."""

    database_url: PostgresUrl = Field(description="The database server, as superuser.")
    nats_url: str = Field(description="NATS servers, separated by commas.")
    role_passwords: SecretStr = Field(description="Passwords of the roles, in their order, separated by commas.")


async def apply(settings: SchemaSettings) -> None:
    """Bring everything to what the repository declares."""
    server = settings.database_url.get_secret_value()
    passwords = dict(zip(role_names(), settings.role_passwords.get_secret_value().split(","), strict=True))
    declared = yaml.safe_load(STREAMS.read_text(encoding="utf-8"))
    with _naming("DATABASE_URL"):
        await provision(server, passwords)
    for database, folder in MIGRATIONS.items():
        role = f"{database}_migrator"
        await migrate(database_url(server, database, role, passwords[role]), folder)
        sys.stdout.write(f"migrated {database}\n")
    with _naming("NATS_URL"):
        await apply_streams(settings.nats_url, declared)
    sys.stdout.write("declared the streams\n")


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """End with a sentence that names the setting when what it points to cannot be reached, or does not let us in."""
    try:
        yield
    except (OSError, InvalidAuthorizationSpecificationError) as error:
        sys.exit(f"what {setting} names cannot be used: {str(error) or 'it does not answer'}")


if __name__ == "__main__":
    asyncio.run(apply(load_or_exit(SchemaSettings)))
