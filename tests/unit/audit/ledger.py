"""A log in memory with everything around it: what the tests of tree, checkpoints and verification stand on."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from audit.adapters.ed25519 import Ed25519Notary
from audit.adapters.jose import JosePersonKeys
from audit.appending import append_drafts
from audit.checkpointing import Checkpoints
from audit.domain.checkpoint import Checkpoint, read_checkpoint
from audit.domain.entry import Actor, ActorType, Draft
from audit.verifying import Progress, Verifier
from chassis.keyring import Keyring

from tests.unit.audit.memory_log import MemoryLog
from tests.unit.audit.memory_tree import MemoryCheckpoints, MemoryTree

ORIGIN = "keys.example.com/audit"
SECRET = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
VAULT = Actor(ActorType.SERVICE, "vault")


class HandClock:
    """Stands still; sleeping is what moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def elapsed(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


@dataclass
class Ledger:
    """A log, its tree and its checkpoints."""

    log: MemoryLog = field(default_factory=MemoryLog)
    store: MemoryCheckpoints = field(default_factory=MemoryCheckpoints)
    clock: HandClock = field(default_factory=HandClock)
    notary: Ed25519Notary = field(default_factory=lambda: Ed25519Notary(ORIGIN, Keyring.parse(SECRET)))

    @property
    def tree(self) -> MemoryTree:
        return MemoryTree(self.log)

    async def append(self, count: int) -> None:
        """Append so many entries in one transaction."""
        first = len(self.log.stored)
        drafts = [
            Draft(f"append-{number}", b"told", VAULT, "key.sealed", "vault") for number in range(first, first + count)
        ]
        async with self.log.transaction() as transaction:
            await append_drafts(transaction, JosePersonKeys(Keyring.parse(SECRET)), drafts)

    async def append_without_tree(self, count: int) -> None:
        """Append as the release before did, that knew of no tree."""
        known = dict(self.log.subtrees)
        await self.append(count)
        self.log.subtrees = known

    def replica(self) -> Checkpoints:
        return Checkpoints(self.tree, self.notary, self.store, origin=ORIGIN, clock=self.clock)

    def published(self, size: int) -> Checkpoint:
        return read_checkpoint(self.notary.open(self.store.published[size]))

    async def verify(self) -> Progress:
        """Walk through the log and return what the walk came to."""
        verifier = Verifier(self.tree, self.notary, self.store, origin=ORIGIN)
        return [progress async for progress in verifier.verify()][-1]
