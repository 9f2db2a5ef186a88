"""What every replica of audit is told about checkpoints, in the tests of others too."""

import base64
import hashlib

import asyncpg
from sandbox.ports import free_port

from tests.integration.real_servers import OneDatabase

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


async def tamper(database: OneDatabase, *statements: str) -> None:
    """Do to the log what only who owns its database can do."""
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute("SET session_replication_role TO replica")
    await connection.execute("ALTER TABLE entry DROP CONSTRAINT IF EXISTS entry_hash_holds")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
