"""What is outside of vault's database: objects, the audit log, time, and a customer's page."""

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from joserfc.jwk import ECKey
from vault.errors import AuditUnavailable, ObjectStoreUnavailable
from vault.ports import ObjectExists, ObjectMissing, ObjectTooLarge, Viewer

from tests.unit.vault.fakes.samples import NOON
from tests.unit.vault.jose_by_hand import read_agreed

FAKE_OBJECT_LIMIT = 4 * 1024 * 1024


class ManualClock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def elapsed(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class MemoryObjects:
    """Implements `vault.ports.ObjectStore`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.loses_answers = False
        self.forgets = False
        self.puts = 0
        self.deletes: list[str] = []
        self.signed: list[tuple[str, timedelta]] = []

    async def create(self, name: str, data: bytes) -> None:
        await self._answer()
        self.puts += 1
        if name in self.objects:
            raise ObjectExists(name)
        if not self.forgets:
            self.objects[name] = data
        if self.loses_answers:
            self.loses_answers = False
            raise ObjectStoreUnavailable("the object store does not answer")

    async def read(self, name: str) -> bytes:
        await self._answer()
        try:
            data = self.objects[name]
        except KeyError:
            raise ObjectMissing(name) from None
        if len(data) > FAKE_OBJECT_LIMIT:
            raise ObjectTooLarge(name)
        return data

    async def delete(self, name: str) -> None:
        await self._answer()
        self.deletes.append(name)
        self.objects.pop(name, None)
        if self.loses_answers:
            self.loses_answers = False
            raise ObjectStoreUnavailable("the object store does not answer")

    async def presign(self, name: str, lifetime: timedelta) -> str:
        self.signed.append((name, lifetime))
        return f"https://store.example/{name}?X-Amz-Expires={int(lifetime.total_seconds())}&X-Amz-Signature=secret"

    async def _answer(self) -> None:
        # Another task may run here, as it may during a real call.
        await asyncio.sleep(0)
        if self.away:
            raise ObjectStoreUnavailable("the object store does not answer")


@dataclass(frozen=True)
class Appended:
    """An entry of the audit log."""

    action: str
    request_id: str
    customer_id: str
    order_id: str
    key_id: str


class MemoryAudit:
    """Implements `vault.ports.AuditLog`."""

    def __init__(self, journal: list[str]) -> None:
        self.entries: list[Appended] = []
        self.away = False
        self._journal = journal

    async def append(self, action: str, *, request_id: str, viewer: Viewer, order_id: str, key_id: str) -> int:
        await asyncio.sleep(0)
        if self.away:
            raise AuditUnavailable("the audit log does not answer; no key is opened without it")
        entry = Appended(action, request_id, viewer.customer_id, order_id, key_id)
        if entry not in self.entries:
            self.entries.append(entry)
            self._journal.append("audit")
        return self.entries.index(entry)


class Recipient:
    """A page that made a one-time key pair."""

    def __init__(self) -> None:
        private = ECKey.generate_key("P-256").as_dict(private=True)
        self._private = {name: str(private[name]) for name in ("kty", "crv", "x", "y", "d")}
        self.jwk = json.dumps({name: value for name, value in self._private.items() if name != "d"}).encode()

    def open(self, token: str) -> bytes:
        return read_agreed(token, self._private)[1]
