"""How many keys vault seals in a second, beside its floor: the bare conditional put of the same bytes.

    .venv/bin/python bench/sealing.py [keys]

A real PostgreSQL and a real S3 on this machine, with vault's use case and its adapters in this process; without gRPC.
The two are measured in turns, one after the other and in the same run. Sealing a key is two commits, a put and reading
back what was put; so beside the put stands the floor of all of these, with no work of ours in between.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import obstore
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.keyring import Keyring
from chassis.outbox import Outbox
from chassis.secret import SecretBytes
from sandbox.servers.postgres import PostgresServer
from sandbox.servers.s3 import S3Server
from sqlalchemy import text
from vault.adapters.kek_keyring import KeyringKeks
from vault.adapters.postgres import PostgresKeys
from vault.adapters.r2 import R2ObjectStore
from vault.adapters.r2_bucket import provision_bucket
from vault.crypto import Digests, Kek
from vault.sealing import Sealer, SealRequest
from vault.wrapping import KeyEncryption

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.real_servers import REPOSITORY, SUPERUSER_PASSWORD, Postgres, provision_roles
from tests.unit.vault.fakes import a_secret

KEYS = 2_000
ROUNDS = 5
AT_ONCE = 16
# What a sealed key of 17 characters comes to.
OBJECT_BYTES = 430

Act = Callable[[], Awaitable[object]]


async def per_second(act: Act, count: int) -> float:
    """Return how many of these are done in a second, so many at once."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await act()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began)


def a_request() -> SealRequest:
    """Return a request to seal a key of its own."""
    return SealRequest(
        request_id=str(uuid.uuid4()),
        source_ref=f"kinguin:bench:{uuid.uuid4().hex}",
        order_id="order-1",
        item_id="item-1",
        customer_id="alice",
        content_type="text/plain",
        plaintext=SecretBytes(uuid.uuid4().hex[:17].encode()),
    )


async def main(count: int) -> None:
    """Print the table."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres_server = PostgresServer(folder / "postgres", password=SUPERUSER_PASSWORD)
        postgres_server.start()
        stack.callback(postgres_server.stop)
        s3_server = S3Server(folder / "s3", access_key_id="bench", secret_access_key="bench-secret")  # noqa: S106 # made for this run
        s3_server.start()
        stack.callback(s3_server.stop)
        place = {
            "endpoint": s3_server.url,
            "bucket": "bench",
            "access_key_id": "bench",
            "secret_access_key": "bench-secret",
        }
        await asyncio.to_thread(lambda: provision_bucket(**place, origin="http://localhost"))
        store = R2ObjectStore(**place)
        await provision_roles(postgres_server)
        made = await Postgres(postgres_server).make_database("vault", REPOSITORY / "services" / "vault" / "migrations")
        database = await stack.enter_async_context(Database.open(made.service_url, application="bench"))
        keyring = Keyring.parse(f"v1:{a_secret(1)}")
        keys = PostgresKeys(database, Outbox({"vault": "VAULT", "audit": "AUDIT"}))
        sealer = Sealer(keys, store, KeyEncryption(KeyringKeks(Kek(keyring))), Digests(keyring), SystemClock())
        data = os.urandom(OBJECT_BYTES)

        async def put() -> str:
            name = f"keys/{uuid.uuid4().hex}"
            await obstore.put_async(store._store, name, data, mode="create", use_multipart=False)  # noqa: SLF001 # bare
            return name

        async def put_and_commits() -> None:
            for _ in range(2):
                async with database.transaction() as connection:
                    await connection.execute(text("SELECT pg_current_xact_id()"))
            name = await put()
            await (await obstore.get_async(store._store, name)).bytes_async()  # noqa: SLF001 # bare

        acts: dict[str, Act] = {
            "bare put": put,
            "put, get, two commits": put_and_commits,
            "sealing": lambda: sealer.seal(a_request()),
        }
        rates: dict[str, list[float]] = {name: [] for name in acts}
        for act in acts.values():
            await per_second(act, AT_ONCE * 4)
        for _ in range(ROUNDS):
            for name, act in acts.items():
                rates[name].append(await per_second(act, count // ROUNDS))
    floor = statistics.median(rates["bare put"])
    print(f"{AT_ONCE} at once, median of {ROUNDS} rounds of {count // ROUNDS}")
    print(f"{'':<22}  {'per second':>10}  {'of the bare put':>15}")
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:<22}  {median:>10,.0f}  {median / floor:>15.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else KEYS))
