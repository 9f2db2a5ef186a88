"""Vault's outside world in memory: rows, objects, the audit log, time; and a customer who makes one-time keys."""

import asyncio
import base64
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta

from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from joserfc.jwk import ECKey
from vault.adapters.kek_keyring import KeyringKeks
from vault.crypto import Digests, Kek, read_recipient
from vault.domain.delivery import Delivery
from vault.domain.familiarity import Kind
from vault.domain.key import KeyRecord, KeyState, WrappedDek
from vault.domain.retention import Retention
from vault.erasing import Eraser
from vault.errors import AuditUnavailable, KeyCorrupted, ObjectStoreUnavailable
from vault.listing import KeyReader
from vault.ports import (
    Authorization,
    KeyFilter,
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    Release,
    Rewrapped,
    RewrapReport,
    Viewer,
    Wish,
)
from vault.releasing import Releaser, ReleaseRequest, request_digest
from vault.rewrapping import Rewrapper
from vault.sealing import Sealer, SealRequest
from vault.service import VaultServicer
from vault.shredding import ObjectRemover
from vault.sweeping import Sweeper
from vault.taking_back import KeyTaker, RevokeRequest, ShredRequest
from vault.uploading import UploadKeys
from vault.wrapping import KeyEncryption

from tests.unit.vault.fakes_keeping import MemoryKeeping
from tests.unit.vault.jose_by_hand import read_agreed

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Viewer("alice", "alice@example.com", "192.0.2.7", "Browser/1.0")
BOB = Viewer("bob")
GAME_KEY = b"AAAAA-BBBBB-CCCCC"
RETENTION = Retention(opened=timedelta(days=30), unopened=timedelta(days=90))
MOST_PER_HOUR = 5
FAKE_OBJECT_LIMIT = 4 * 1024 * 1024


def a_secret(seed: int) -> str:
    return base64.urlsafe_b64encode(bytes((seed * 7 + number * 37) % 256 for number in range(32))).decode().rstrip("=")


def a_keyring(*versions: str) -> Keyring:
    return Keyring.parse(",".join(f"{version}:{a_secret(int(version[1:]))}" for version in versions or ("v1",)))


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


class MemoryWrappedDeks:
    """Implements `vault.ports.WrappedDeks` on the rows of `MemoryKeys`."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys
        self.held: set[str] = set()
        """Keys whose rows somebody else holds."""
        self.told: list[tuple[str, RewrapReport]] = []

    async def counts(self) -> Mapping[str, int]:
        return Counter(record.dek.kek_version for record in self.keys.rows.keys.values() if record.dek is not None)

    async def page(
        self, version: str, *, after: str, before: str | None, size: int
    ) -> Sequence[tuple[str, WrappedDek]]:
        found = [
            (record.key_id, record.dek)
            for record in self.keys.rows.keys.values()
            if record.dek is not None
            and record.dek.kek_version == version
            and record.key_id > after
            and (before is None or record.key_id <= before)
        ]
        return sorted(found, key=lambda piece: piece[0])[:size]

    async def replace(self, pieces: Sequence[Rewrapped]) -> Collection[str]:
        async with self.keys.transaction() as transaction:
            rows = transaction.rows.keys
            mine = [piece for piece in pieces if piece.key_id not in self.held and rows[piece.key_id].dek == piece.old]
            rows.update({piece.key_id: replace(rows[piece.key_id], dek=piece.new) for piece in mine})
        return [piece.key_id for piece in mine]

    async def begin(self, report: RewrapReport, digest: bytes, *, now: datetime) -> None:
        async with self.keys.transaction() as transaction:
            if not await transaction.is_repeat(report.wish.request_id, digest):
                await transaction.note_done(report.wish.request_id, digest)
                self._tell("keks.rewrap_started", report, now)

    async def finish(self, report: RewrapReport, *, now: datetime) -> None:
        self._tell("keks.rewrap_finished", report, now)

    def _tell(self, action: str, report: RewrapReport, now: datetime) -> None:
        assert now.tzinfo is not None
        if (action, report.wish.request_id) not in {(told, each.wish.request_id) for told, each in self.told}:
            self.told.append((action, report))


class MemoryStoredDigests:
    """Implements `vault.ports.StoredDigests` on the rows of `MemoryKeys`."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys

    async def versions(self) -> frozenset[str]:
        return frozenset(self._counts())

    async def count(self, version: str) -> int:
        return self._counts()[version]

    def _counts(self) -> Counter[str]:
        return Counter(record.fingerprint.partition(".")[0] for record in self.keys.rows.keys.values())


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


class World:
    """Vault's use cases on the fakes. Several sealers and releasers are several replicas."""

    def __init__(self) -> None:
        self.keys = MemoryKeys()
        self.deks = MemoryWrappedDeks(self.keys)
        self.objects = MemoryObjects()
        self.audit = MemoryAudit(self.keys.journal)
        self.clock = ManualClock()
        self.kek = Kek(a_keyring("v1"))
        self.upload_keys = UploadKeys(a_keyring("v1"))
        self.digests = Digests(a_keyring("v2"))
        self.recipient = Recipient()

    @property
    def keks(self) -> KeyEncryption:
        return KeyEncryption(KeyringKeks(self.kek))

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.keys, self.objects, self.keks, self.digests, self.clock)

    @property
    def releaser(self) -> Releaser:
        return Releaser(
            self.keys,
            self.objects,
            self.audit,
            self.keks,
            self.digests,
            clock=self.clock,
            most_per_hour=MOST_PER_HOUR,
        )

    @property
    def remover(self) -> ObjectRemover:
        return ObjectRemover(self.keys, self.objects, clock=self.clock)

    @property
    def taker(self) -> KeyTaker:
        return KeyTaker(self.keys, self.remover, clock=self.clock)

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.keys, self.remover, clock=self.clock, retention=RETENTION, every_seconds=1)

    @property
    def eraser(self) -> Eraser:
        return Eraser(self.keys, self.remover, self.digests, clock=self.clock)

    @property
    def rewrapper(self) -> Rewrapper:
        return Rewrapper(self.deks, self.keks, clock=self.clock)

    @property
    def servicer(self) -> VaultServicer:
        return VaultServicer(
            sealer=self.sealer,
            releaser=self.releaser,
            taker=self.taker,
            reader=KeyReader(self.keys),
            upload_keys=self.upload_keys,
            rewrapper=self.rewrapper,
            sweeper=self.sweeper,
            eraser=self.eraser,
        )

    def dek(self, record: KeyRecord) -> SecretBytes:
        return self.kek.unwrap(wrapped_dek(record), record.key_id)

    async def sealed(self, plaintext: bytes = GAME_KEY, **changes: str) -> KeyRecord:
        return await self.sealer.seal(a_seal(plaintext, **changes))

    def ask(
        self, record: KeyRecord, way: Release = Release.REVEAL, *, viewer: Viewer = ALICE, **changes: str
    ) -> ReleaseRequest:
        order_id = changes.get("order_id", record.order_id)
        parts = (way.value, order_id, record.key_id, viewer.customer_id)
        return ReleaseRequest(
            request_id=changes.get("request_id", str(uuid.uuid4())),
            digest=request_digest(*(part.encode() for part in parts), self.recipient.jwk),
            order_id=order_id,
            key_id=changes.get("key_id", record.key_id),
            viewer=viewer,
            recipient=read_recipient(self.recipient.jwk),
        )


def wrapped_dek(record: KeyRecord) -> WrappedDek:
    assert record.dek is not None, "the key was shredded"
    return record.dek


def a_wish(request_id: str = "", caller: str = "fulfillment", reason: str = "the order was refunded") -> Wish:
    return Wish(request_id or str(uuid.uuid4()), caller, reason)


def a_revocation(*key_ids: str, order_id: str = "order-1", request_id: str = "") -> RevokeRequest:
    digest = request_digest(b"revoke", order_id.encode(), *(key_id.encode() for key_id in key_ids))
    return RevokeRequest(a_wish(request_id), digest, order_id, key_ids)


def a_shredding(key_id: str, order_id: str = "order-1", request_id: str = "") -> ShredRequest:
    return ShredRequest(
        a_wish(request_id), request_digest(b"shred", order_id.encode(), key_id.encode()), order_id, key_id
    )


def a_seal(plaintext: bytes = GAME_KEY, **changes: str) -> SealRequest:
    source_ref = changes.get("source_ref", "kinguin:1:1")
    return SealRequest(
        request_id=changes.get("request_id", str(uuid.uuid5(uuid.NAMESPACE_URL, source_ref))),
        source_ref=source_ref,
        order_id=changes.get("order_id", "order-1"),
        item_id=changes.get("item_id", "item-1"),
        customer_id=changes.get("customer_id", "alice"),
        content_type=changes.get("content_type", "text/plain"),
        plaintext=SecretBytes(plaintext),
    )
