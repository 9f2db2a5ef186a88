"""What vault needs of the outside world, in its own words."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from chassis.secret import SecretBytes

from vault.domain.familiarity import Kind
from vault.domain.kek import KekVersions
from vault.domain.key import KeyRecord, KeyState, WrappedDek
from vault.ports_keeping import DeliveryRows, RetentionRows


class ObjectExists(Exception):
    """An object of this name is there already; it was not changed."""


class ObjectMissing(Exception):
    """There is no object of this name."""


class ObjectTooLarge(Exception):
    """The object is larger than anything of ours; it was not read."""


class ObjectStore(Protocol):
    """Keeps sealed objects. Every method raises ObjectStoreUnavailable when the store does not answer."""

    async def create(self, name: str, data: bytes) -> None:
        """Store an object that is not there yet. Raises ObjectExists."""
        ...

    async def read(self, name: str) -> bytes:
        """Return an object. Raises ObjectMissing or ObjectTooLarge."""
        ...

    async def delete(self, name: str) -> None:
        """Make sure that there is no object of this name; one that is not there is gone already."""
        ...

    async def presign(self, name: str, lifetime: timedelta) -> str:
        """Return a URL that gives the object to whoever holds it, for this long."""
        ...


@dataclass(frozen=True, slots=True)
class Viewer:
    """The customer on whose behalf a key is opened."""

    customer_id: str
    email: str = field(default="", repr=False)
    ip_address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)
    country_code: str = field(default="", repr=False)


class Release(Enum):
    """The two ways in which a key leaves vault. The value begins the names of its audit actions."""

    LINK = "key.link"
    REVEAL = "key.reveal"


class AuditLog(Protocol):
    """The log that is written first."""

    async def append(self, action: str, *, request_id: str, viewer: Viewer, order_id: str, key_id: str) -> int:
        """Append an entry and return its sequence once it is durable. Twice under one request id is once.

        Raises AuditUnavailable, or RequestIdReused when the id stands for another entry: nothing may be released then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Authorization:
    """A release that audit has in its log: everything that is kept of a request."""

    request_id: str
    request_digest: bytes
    release: Release
    key_id: str
    audit_sequence: int
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys are listed: of one order, first asked for within a span of time; what is absent allows all."""

    order_id: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """Why a key is taken back, for the audit log: which request, who made it, and its words."""

    request_id: str
    caller: str
    reason: str


class KeyTransaction(DeliveryRows, RetentionRows, Protocol):
    """One transaction over keys, requests and the outbox."""

    async def key(self, key_id: str) -> KeyRecord | None:
        """Return a key."""
        ...

    async def key_by_source(self, source_ref: str) -> KeyRecord | None:
        """Return the key of a source."""
        ...

    async def add(self, record: KeyRecord) -> bool:
        """Add a key; False, and nothing was added, when its source or its request id has one already."""
        ...

    async def lock(self, key_ids: Collection[str]) -> Sequence[KeyRecord]:
        """Return those of these keys that there are, holding off whoever would change one until the transaction ends.

        All who lock several do so in the same order, so that no two wait for one another.
        """
        ...

    async def page(
        self, wanted: KeyFilter, *, size: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[KeyRecord]:
        """Return so many keys behind this (create time, key id), in the order of both."""
        ...

    async def same_key(self, record: KeyRecord, fingerprints: Sequence[str]) -> str | None:
        """Return the id of an earlier key with one of these fingerprints, holding off others who ask for the same.

        A key has a fingerprint under each version of the secret that was retained when it was sealed: replicas of which
        one has a newer version than the other still find each other's.

        Whatever became of the earlier one it counts, also where it was taken back: a key that we gave back and are sold
        again is a matter for a human.
        """
        ...

    async def finish(
        self, record: KeyRecord, state: KeyState, *, object_sha256: bytes, now: datetime, same_as: str | None = None
    ) -> bool:
        """Mark a key as stored, read back and opened; False when somebody else moved it on from this record.

        `same_as` is the earlier key that a held one repeats.
        """
        ...

    async def next_generation(self, record: KeyRecord) -> None:
        """Move a key that is being sealed on to the next name; done twice from the same record it is done once."""
        ...

    async def mark_opened(self, key_id: str, *, now: datetime) -> bool:
        """Mark a sealed key as opened, if it is not yet; False, and nothing is marked, when it is not sealed any more.

        Holds off whoever would revoke it until the transaction ends, and is held off by them: one of the two wins.
        """
        ...

    async def revoke(self, key_ids: Collection[str], *, now: datetime) -> None:
        """Revoke keys that this transaction has locked."""
        ...

    async def is_repeat(self, request_id: str, digest: bytes) -> bool:
        """Tell whether a request was done before, holding off its repeats. Raises RequestIdReused for another body."""
        ...

    async def note_done(self, request_id: str, digest: bytes) -> None:
        """Note that a request was done, for `is_repeat`."""
        ...

    async def authorization(self, request_id: str) -> Authorization | None:
        """Return what is kept of a request."""
        ...

    async def add_authorization(self, authorization: Authorization) -> None:
        """Keep a request; one that is kept already stays as it is."""
        ...

    async def tell_sealed(self, record: KeyRecord, *, same_as: str | None, now: datetime) -> None:
        """Put the audit fact of a sealed or held key into the outbox."""
        ...

    async def tell_revoked(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        """Put the audit fact of each revoked key into the outbox."""
        ...

    async def tell_shredded(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        """Put the audit fact and the event of each destroyed key into the outbox."""
        ...

    async def tell_expired(self, records: Sequence[KeyRecord], *, now: datetime) -> None:
        """Put the audit fact and the event of each key whose retention was over into the outbox."""
        ...

    async def tell_erased(self, wish: Wish, counts: Mapping[str, int], *, now: datetime) -> None:
        """Put the audit fact of a customer who was forgotten into the outbox. It does not say who that was."""
        ...

    async def tell_limited(self, record: KeyRecord, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        """Put the audit fact of a key that was asked for too often into the outbox; once per key and hour."""
        ...

    async def tell_unusual(
        self, authorization: Authorization, record: KeyRecord, news: Collection[Kind], *, now: datetime
    ) -> None:
        """Put the event of an access of which something was new into the outbox; once per request."""
        ...

    async def tell_denied(self, key_id: str, order_id: str, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        """Put the audit fact of a denied access into the outbox."""
        ...

    async def tell_outcome(
        self, authorization: Authorization, record: KeyRecord, viewer: Viewer, *, failure: str, now: datetime
    ) -> None:
        """Put the fact that a release succeeded, or failed and why, into the outbox; once per request.

        A success also opens the key for fulfillment; a key that did not open is told to it, so that a person looks.
        """
        ...


class Keys(Protocol):
    """The rows of keys. Raises ServiceUnavailable when the database does not answer."""

    def transaction(self) -> AbstractAsyncContextManager[KeyTransaction]:
        """Run a block in one transaction."""
        ...


class KekHolder(Protocol):
    """Holds KEKs and wraps DEKs with them, several at a time. Raises KeyEncryptionUnavailable when it does not answer.

    A wrapped DEK is bound to its key and to the KEK's version: under another name it does not unwrap.
    """

    def names(self, version: str) -> bool:
        """Tell whether a version is one of this holder's, by its name."""
        ...

    async def versions(self) -> KekVersions:
        """Return the versions that there are now."""
        ...

    async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
        """Wrap the DEKs of these keys (by key id) under the active version."""
        ...

    async def unwrap(self, wrapped: Sequence[tuple[str, WrappedDek]]) -> Sequence[SecretBytes | None]:
        """Unwrap the DEKs of these keys; None for one that was changed, or is another key's.

        Raises SecretVersionMissing when the KEK of one of them is not there (any more, or yet).
        """
        ...


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """A DEK that was wrapped anew, and the wrapped DEK whose place it takes."""

    key_id: str
    old: WrappedDek
    new: WrappedDek


@dataclass(frozen=True, slots=True)
class RewrapReport:
    """What audit is told of a rewrap: its wish, where DEKs were moved to, and how many."""

    wish: Wish
    active_version: str
    counts: Mapping[str, int]


class StoredDigests(Protocol):
    """The versions of the digests that keys are recognized and bound by. Raises ServiceUnavailable.

    A key's binding and its first fingerprint are made at once, under the version that is active then.
    """

    async def versions(self) -> frozenset[str]:
        """Return the versions that are in use."""
        ...

    async def count(self, version: str) -> int:
        """Return how many keys have their digests under a version."""
        ...


class WrappedDeks(Protocol):
    """The wrapped DEKs of all keys, by the version of their KEK. Raises ServiceUnavailable."""

    async def counts(self) -> Mapping[str, int]:
        """Return how many keys are wrapped under each version that is in use."""
        ...

    async def page(
        self, version: str, *, after: str, before: str | None, size: int
    ) -> Sequence[tuple[str, WrappedDek]]:
        """Return the wrapped DEKs under a version of keys with after < key id <= before, in that order."""
        ...

    async def replace(self, pieces: Sequence[Rewrapped]) -> Collection[str]:
        """Put new wrapped DEKs in the place of old ones, and return the ids of the keys where that was done.

        Not where the row is held by somebody else at the moment, or does not have the old one any more: a key that was
        destroyed meanwhile stays destroyed.
        """
        ...

    async def begin(self, report: RewrapReport, digest: bytes, *, now: datetime) -> None:
        """Tell audit that a rewrap begins, once per request id. Raises RequestIdReused for another body."""
        ...

    async def finish(self, report: RewrapReport, *, now: datetime) -> None:
        """Tell audit what a rewrap came to, once per request id."""
        ...
