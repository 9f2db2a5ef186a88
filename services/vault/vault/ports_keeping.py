"""What keeping, counting and forgetting need of the rows of keys: parts of `vault.ports.KeyTransaction`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from vault.domain.delivery import Delivery, Usage
from vault.domain.familiarity import Kind
from vault.domain.key import KeyRecord
from vault.domain.retention import Retention


class DeliveryRows(Protocol):
    """What was done with each key, and by what owners are known."""

    async def note_delivery(self, key_ids: Collection[str], delivery: Delivery) -> None:
        """Note that something was done with keys; for each key once per act and request."""
        ...

    async def note_release(self, key_id: str, delivery: Delivery) -> None:
        """Note and count a link or a reveal of a key that this transaction has locked; once per request.

        Of very many the oldest lines go, and stay counted.
        """
        ...

    async def usage(self, key_id: str, request_id: str, *, since: datetime) -> Usage:
        """Return the links and reveals of a key since then. A key that is locked stays as it is told."""
        ...

    async def read_deliveries(self, key_id: str) -> Sequence[Delivery]:
        """Return what was noted of a key, in the order of noting."""
        ...

    async def known_access(self, owners: Collection[str]) -> Mapping[Kind, Collection[str]]:
        """Return the digests of traits by which an owner is known, under whatever version of the owner's digest."""
        ...

    async def know_access(self, owner: str, traits: Mapping[Kind, str], *, now: datetime, most: int) -> None:
        """Note that an owner was seen with these traits. Of more than `most` of a kind those longest unseen go."""
        ...


class RetentionRows(Protocol):
    """Keys that end, objects that are left, and owners who are forgotten."""

    async def lock_expired(self, retention: Retention, *, limit: int, now: datetime) -> Sequence[KeyRecord]:
        """Return and lock so many keys whose retention is over, but for those that somebody else has locked."""
        ...

    async def shred(
        self, key_ids: Collection[str], *, now: datetime, delete_at: datetime, expired: bool = False
    ) -> None:
        """Destroy the wrapped DEKs of keys that this transaction has locked; `expired` where their time was over.

        Whoever destroys them deletes their objects too; if they do not live to, the sweep does from `delete_at` on.
        """
        ...

    async def lease_objects(self, *, limit: int, now: datetime, until: datetime) -> Sequence[tuple[KeyRecord, int]]:
        """Return destroyed keys whose objects are to be deleted now, each with how often that was tried.

        Nobody else is told of them until the lease ends.
        """
        ...

    async def object_deleted(self, key_id: str, *, now: datetime) -> None:
        """Note that a destroyed key's object is gone; the first time is kept."""
        ...

    async def object_waits(self, key_id: str, *, until: datetime) -> None:
        """Let the deletion of an object be tried again, but not before."""
        ...

    async def read_objects_left(self) -> tuple[int, datetime | None]:
        """Count the destroyed keys whose objects may still be there, and return when the first was destroyed."""
        ...

    async def read_owed(self, owners: Collection[str], *, most: int) -> tuple[int, Sequence[str]]:
        """Count an owner's keys that could still be opened for the first time, and name at most so many orders."""
        ...

    async def lock_owned(self, owners: Collection[str], *, limit: int, with_owed: bool) -> Sequence[KeyRecord]:
        """Return and lock so many of an owner's keys in the order of their ids; without those still owed, or with."""
        ...

    async def forget_owner(self, key_ids: Collection[str]) -> None:
        """Make locked keys nobody's, and remove what is personal from what was noted of them."""
        ...

    async def forget_access(self, owners: Collection[str]) -> None:
        """Remove everything by which an owner is known."""
        ...

    async def read_counts(self, request_id: str, digest: bytes) -> Mapping[str, int] | None:
        """Return what a request was answered before, holding off its repeats. Raises RequestIdReused."""
        ...

    async def keep_counts(self, request_id: str, digest: bytes, counts: Mapping[str, int]) -> None:
        """Keep what a request is answered, for `read_counts`."""
        ...
