"""Many sealed keys in vault's database at once, a few of them with an object that can be opened."""

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from vault.crypto import Digests, Kek, seal
from vault.domain.key import WrappedDek, object_name

from tests.integration.real_servers import fetch
from tests.integration.vault_replicas import Bench

COLUMNS = (
    "key_id",
    "source_ref",
    "seal_request_id",
    "order_id",
    "item_id",
    "order_digest",
    "owner_digest",
    "content_type",
    "fingerprint",
    "wrapped_dek",
    "kek_version",
    "state",
    "object_sha256",
    "seal_time",
)


def game_key(key_id: str) -> bytes:
    return f"GAME-{key_id}".encode()


@dataclass(frozen=True)
class ManyKeys:
    """What was sealed: every DEK by its key, and the keys that have an object."""

    deks: Mapping[str, bytes]
    with_object: Sequence[str]

    async def check_all_open(self, bench: Bench, keyring: str) -> None:
        """See that every row gives its DEK with this keyring alone: its object was never touched."""
        kek = Kek(Keyring.parse(keyring))
        rows = await fetch(bench.database.superuser_url, "SELECT key_id, wrapped_dek, kek_version FROM sealed_key")
        assert len(rows) == len(self.deks)
        for row in rows:
            dek = kek.unwrap(WrappedDek(row["wrapped_dek"], row["kek_version"]), row["key_id"])
            assert dek.expose() == self.deks[row["key_id"]]


async def seal_many(bench: Bench, count: int, *, with_object: int) -> ManyKeys:
    """Store keys for alice's order as if they had been sealed one by one, under the keyring of the bench."""
    kek = Kek(Keyring.parse(bench.environment["KEY_ENCRYPTION_SECRET"]))
    digests = Digests(Keyring.parse(bench.environment["KEYFERRY_DIGEST_SECRET"]))
    binding = digests.bind("order-1", "alice")
    deks = {uuid.uuid4().hex: os.urandom(32) for _ in range(count)}
    chosen = list(deks)[:with_object]
    digest_of: dict[str, bytes] = {}
    for key_id in chosen:
        plaintext = SecretBytes(game_key(key_id))
        sealed = seal(plaintext, SecretBytes(deks[key_id]), key_id=key_id, content_type="text/plain", binding=binding)
        bench.s3.put_object(Bucket=bench.environment["R2_BUCKET"], Key=object_name(key_id, 0), Body=sealed)
        digest_of[key_id] = hashlib.sha256(sealed).digest()
    connection = await asyncpg.connect(bench.database.superuser_url)
    try:
        (now,) = await connection.fetchrow("SELECT now()")
        rows = []
        for key_id, dek in deks.items():
            wrapped = kek.wrap(SecretBytes(dek), key_id)
            names = (key_id, f"many:{key_id}", f"many-{key_id}", "order-1", "item-1", binding.order, binding.owner)
            kept = (wrapped.data, wrapped.kek_version, "SEALED", digest_of.get(key_id, bytes(32)), now)
            rows.append((*names, "text/plain", f"v1.{key_id}", *kept))
        await connection.copy_records_to_table("sealed_key", records=rows, columns=COLUMNS)
        await connection.execute("ANALYZE sealed_key")
    finally:
        await connection.close()
    return ManyKeys(deks, chosen)
