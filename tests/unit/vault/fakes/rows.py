"""Vault's database in memory: rows and the outbox, in transactions one after another."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from chassis.errors import RequestIdReused, ServiceUnavailable
from vault.domain.delivery import Delivery
from vault.domain.familiarity import Kind
from vault.domain.key import KeyRecord, KeyState
from vault.errors import KeyCorrupted
from vault.ports import Authorization, KeyFilter, Viewer, Wish

from tests.unit.vault.fakes.keeping import MemoryKeeping


@dataclass(frozen=True)
class Told:
    """A fact in the outbox, as far as the use cases decide it. Its identity makes it one however often it is told."""

    identity: tuple[str, ...]
    action: str
    key_id: str
    actor: str
    details: dict[str, str] = field(hash=False, default_factory=dict)


@dataclass
class Rows:
    """What the database holds."""

    keys: dict[str, KeyRecord] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    authorizations: dict[str, Authorization] = field(default_factory=dict)
    outbox: dict[tuple[str, ...], Told] = field(default_factory=dict)
    done: dict[str, bytes] = field(default_factory=dict)
    deliveries: list[tuple[str, Delivery]] = field(default_factory=list)
    known: dict[tuple[str, Kind, str], datetime] = field(default_factory=dict)
    objects_due: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    counts: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def copy(self) -> "Rows":
        return Rows(**{each.name: copy(getattr(self, each.name)) for each in fields(self)})


class MemoryKeys:
    """Implements `vault.ports.Keys`: transactions one after another, all or nothing."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.away = False
        self.journal: list[str] = []
        self.commits = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["MemoryTransaction"]:
        if self.away:
            raise ServiceUnavailable("the database does not answer")
        async with self._turn:
            transaction = MemoryTransaction(self.rows.copy())
            yield transaction
            if transaction.wrote:
                self.commits += 1
                self.journal.append("commit")
            self.rows = transaction.rows

    @property
    def told(self) -> list[str]:
        return [fact.action for fact in self.rows.outbox.values()]

    def only_key(self) -> KeyRecord:
        (record,) = self.rows.keys.values()
        return record


class MemoryTransaction(MemoryKeeping):
    """Implements `vault.ports.KeyTransaction`."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.wrote = False

    async def key(self, key_id: str) -> KeyRecord | None:
        return self.rows.keys.get(key_id)

    async def key_by_source(self, source_ref: str) -> KeyRecord | None:
        return next((record for record in self.rows.keys.values() if record.source_ref == source_ref), None)

    async def add(self, record: KeyRecord) -> bool:
        for known in self.rows.keys.values():
            if record.source_ref == known.source_ref or record.seal_request_id == known.seal_request_id:
                return False
        self.rows.keys[record.key_id] = record
        self.rows.order.append(record.key_id)
        self.wrote = True
        return True

    async def lock(self, key_ids: Collection[str]) -> Sequence[KeyRecord]:
        return [self.rows.keys[key_id] for key_id in sorted(set(key_ids)) if key_id in self.rows.keys]

    async def page(
        self, wanted: KeyFilter, *, size: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[KeyRecord]:
        found = [
            record
            for record in self.rows.keys.values()
            if wanted.order_id in ("", record.order_id)
            and (wanted.start_time is None or record.create_time >= wanted.start_time)
            and (wanted.end_time is None or record.create_time < wanted.end_time)
            and (after is None or (record.create_time, record.key_id) > after)
        ]
        return sorted(found, key=lambda record: (record.create_time, record.key_id))[:size]

    async def same_key(self, record: KeyRecord, fingerprints: Sequence[str]) -> str | None:
        for key_id in self.rows.order:
            other = self.rows.keys[key_id]
            was_ours = other.state is not KeyState.SEALING
            stored = {other.fingerprint, *other.other_fingerprints}
            if key_id != record.key_id and was_ours and not stored.isdisjoint(fingerprints):
                return key_id
        return None

    async def finish(
        self, record: KeyRecord, state: KeyState, *, object_sha256: bytes, now: datetime, same_as: str | None = None
    ) -> bool:
        return self._move_on(record, state=state, object_sha256=object_sha256, seal_time=now, same_key_id=same_as)

    async def next_generation(self, record: KeyRecord) -> None:
        self._move_on(record, generation=record.generation + 1)

    def _move_on(self, record: KeyRecord, **changes: object) -> bool:
        stored = self.rows.keys[record.key_id]
        if stored.state is not KeyState.SEALING or stored.generation != record.generation:
            return False
        self.change(stored, **changes)
        return True

    async def mark_opened(self, key_id: str, *, now: datetime) -> bool:
        stored = self.rows.keys[key_id]
        if stored.state is not KeyState.SEALED:
            return False
        self.change(stored, open_time=stored.open_time or now)
        return True

    async def revoke(self, key_ids: Collection[str], *, now: datetime) -> None:
        for key_id in key_ids:
            stored = self.rows.keys[key_id]
            assert not stored.is_opened, "PostgreSQL refuses it too"
            self.change(stored, state=KeyState.REVOKED, revoke_time=now)

    def change(self, stored: KeyRecord, **changes: object) -> None:
        self.rows.keys[stored.key_id] = replace(stored, **changes)  # type: ignore[arg-type] # the fields' own types
        self.wrote = True

    async def is_repeat(self, request_id: str, digest: bytes) -> bool:
        known = self.rows.done.get(request_id)
        if known not in (None, digest):
            raise RequestIdReused("request_id: was used with another body")
        return known is not None

    async def note_done(self, request_id: str, digest: bytes) -> None:
        self.rows.done[request_id] = digest
        self.wrote = True

    async def authorization(self, request_id: str) -> Authorization | None:
        return self.rows.authorizations.get(request_id)

    async def add_authorization(self, authorization: Authorization) -> None:
        self.rows.authorizations.setdefault(authorization.request_id, authorization)
        self.wrote = True

    async def tell_sealed(self, record: KeyRecord, *, same_as: str | None, now: datetime) -> None:
        action = "key.held" if same_as else "key.sealed"
        details = {"same_as": same_as} if same_as else {}
        self._tell(Told((action, record.key_id), action, record.key_id, "vault", details), now)

    async def tell_revoked(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        for record in records:
            self._tell_taken_back("key.revoked", record, wish, now)

    async def tell_shredded(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        for record in records:
            self._tell_taken_back("key.shredded", record, wish, now)
            event = "vault.key.shredded"
            self._tell(Told((event, record.key_id), event, record.key_id, "vault"), now)

    async def tell_expired(self, records: Sequence[KeyRecord], *, now: datetime) -> None:
        for record in records:
            for name in ("key.expired", "vault.key.expired"):
                details = {"opened": str(record.is_opened).lower()}
                self._tell(Told((name, record.key_id), name, record.key_id, "vault", details), now)

    async def tell_erased(self, wish: Wish, counts: Mapping[str, int], *, now: datetime) -> None:
        action = "customer.keys_erased"
        details = {name: str(count) for name, count in counts.items()}
        self._tell(Told((action, wish.request_id), action, "", wish.caller, details), now)

    async def tell_limited(self, record: KeyRecord, viewer: Viewer, *, request_id: str, now: datetime) -> None:  # noqa: ARG002 # the first of an hour is told
        action = "key.release_limited"
        identity = (action, record.key_id, now.strftime("%Y-%m-%dT%H"))
        self._tell(Told(identity, action, record.key_id, viewer.customer_id), now)

    async def tell_unusual(
        self, authorization: Authorization, record: KeyRecord, news: Collection[Kind], *, now: datetime
    ) -> None:
        event = "vault.key.unusual_access"
        details = {"news": ",".join(sorted(kind.value for kind in news))}
        self._tell(Told((event, authorization.request_id), event, record.key_id, "vault", details), now)

    def _tell_taken_back(self, action: str, record: KeyRecord, wish: Wish, now: datetime) -> None:
        details = {"reason": wish.reason, "state": record.state.value}
        self._tell(Told((action, record.key_id), action, record.key_id, wish.caller, details), now)

    async def tell_denied(self, key_id: str, order_id: str, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        action = "key.access_denied"
        identity = (action, request_id, key_id, viewer.customer_id)
        self._tell(Told(identity, action, key_id, viewer.customer_id, {"order_id": order_id}), now)

    async def tell_outcome(
        self, authorization: Authorization, record: KeyRecord, viewer: Viewer, *, failure: str, now: datetime
    ) -> None:
        action = f"{authorization.release.value}_{'failed' if failure else 'released'}"
        identity = (action, authorization.request_id)
        details = {"reason": failure} if failure else {}
        self._tell(Told(identity, action, record.key_id, viewer.customer_id, details), now)
        if not failure:
            opened = ("vault.key.opened", authorization.request_id)
            self._tell(Told(opened, "vault.key.opened", record.key_id, viewer.customer_id), now)
        if failure == KeyCorrupted.reason:
            corrupted = ("vault.key.corrupted", authorization.request_id)
            self._tell(Told(corrupted, "vault.key.corrupted", record.key_id, viewer.customer_id), now)

    def _tell(self, fact: Told, now: datetime) -> None:
        assert now.tzinfo is not None
        self.rows.outbox.setdefault(fact.identity, fact)
        self.wrote = True
