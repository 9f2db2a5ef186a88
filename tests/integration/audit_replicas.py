"""What every replica of audit is told about checkpoints, in the tests of others too."""

import base64
import hashlib

import asyncpg
from chassis.told_settings import ACTION
from sandbox.ports import free_port

from tests.integration.real_servers import OneDatabase, fetch

SETTINGS_CHANGED = ACTION
ORIGIN = "keys.example.com/audit"
CHECKPOINT_SECRET = "v1:" + base64.urlsafe_b64encode(hashlib.sha256(b"checkpoints").digest()).decode().rstrip("=")


def checkpoint_settings(**changes: str) -> dict[str, str]:
    """Give good settings; unless told otherwise of a store that is not there, which stops nothing but publishing."""
    return {
        "KEYFERRY_CHECKPOINT_SECRET": CHECKPOINT_SECRET,
        "KEYFERRY_LOG_ORIGIN": ORIGIN,
        "KEYFERRY_CHECKPOINT_BUCKET": "checkpoints",
        "R2_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "R2_ACCESS_KEY_ID": "nobody",
        "R2_SECRET_ACCESS_KEY": "nothing",
    } | changes


async def entries_of_others(database: OneDatabase) -> list[asyncpg.Record]:
    """Give the rows that somebody had appended, in order; without what replicas told of their settings."""
    statement = f"SELECT * FROM entry WHERE action <> '{SETTINGS_CHANGED}' ORDER BY sequence"  # noqa: S608 # a constant
    return await fetch(database.superuser_url, statement)


async def log_size(database: OneDatabase) -> int:
    """Give the sequence that comes next. A replica that is ready has told of its settings already."""
    (row,) = await fetch(database.superuser_url, "SELECT coalesce(max(sequence) + 1, 0) AS size FROM entry")
    return int(row["size"])


async def tamper(database: OneDatabase, *statements: str) -> None:
    """Do to the log what only who owns its database can do."""
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute("SET session_replication_role TO replica")
    await connection.execute("ALTER TABLE entry DROP CONSTRAINT IF EXISTS entry_hash_holds")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
