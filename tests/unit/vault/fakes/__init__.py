"""Vault's outside world in memory, its use cases on it, and a customer who makes one-time keys."""

from tests.unit.vault.fakes.outside import (
    FAKE_OBJECT_LIMIT,
    Appended,
    ManualClock,
    MemoryAudit,
    MemoryObjects,
    Recipient,
)
from tests.unit.vault.fakes.rows import MemoryKeys, MemoryTransaction, Rows, Told
from tests.unit.vault.fakes.samples import (
    ALICE,
    BOB,
    GAME_KEY,
    MOST_PER_HOUR,
    NOON,
    RETENTION,
    a_keyring,
    a_revocation,
    a_seal,
    a_secret,
    a_shredding,
    a_wish,
    wrapped_dek,
)
from tests.unit.vault.fakes.versions import MemoryStoredDigests, MemoryWrappedDeks
from tests.unit.vault.fakes.world import World

__all__ = [
    "ALICE",
    "BOB",
    "FAKE_OBJECT_LIMIT",
    "GAME_KEY",
    "MOST_PER_HOUR",
    "NOON",
    "RETENTION",
    "Appended",
    "ManualClock",
    "MemoryAudit",
    "MemoryKeys",
    "MemoryObjects",
    "MemoryStoredDigests",
    "MemoryTransaction",
    "MemoryWrappedDeks",
    "Recipient",
    "Rows",
    "Told",
    "World",
    "a_keyring",
    "a_revocation",
    "a_seal",
    "a_secret",
    "a_shredding",
    "a_wish",
    "wrapped_dek",
]
