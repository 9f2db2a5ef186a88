"""What the log needs from outside, in its own words."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from audit.domain.entry import Actor, ActorType, Appended, Entry, Place
from audit.domain.filters import Filters
from audit.domain.tree import Node


@dataclass(frozen=True, slots=True)
class Person:
    """What the log knows of a person outside of its entries. Deleting it forgets the person.

    `wrapped_key` opens the personal part of the person's entries once it is unwrapped with `secret_version`.
    """

    pseudonym: str
    secret_version: str
    wrapped_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry with its place, ready to be stored."""

    append_id: str
    request_digest: bytes
    canonical: str
    appended: Appended


@dataclass(frozen=True, slots=True)
class EarlierAppend:
    """An append that is in the log already."""

    request_digest: bytes
    appended: Appended


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is exported."""

    sequence: int
    canonical: str


class LogTransaction(Protocol):
    """One transaction on the log. What it adds is durable, and seen by others, once it ends well."""

    async def take_turn(self) -> tuple[Place | None, datetime]:
        """Wait until no other transaction appends, and keep others waiting until this one ends.

        Returns the place of the last entry, None in an empty log, and the time now. Only what is read after this
        call is sure to be what the previous appender left. Who has the turn may take it again.
        """
        ...

    async def earlier_appends(self, append_ids: Collection[str]) -> Mapping[str, EarlierAppend]:
        """Return those of the ids that were appended before."""
        ...

    async def persons(self, lookups: Collection[bytes]) -> Mapping[bytes, Person]:
        """Return the persons known under these lookup digests."""
        ...

    async def add_person(self, person: Person, lookup: bytes) -> None:
        """Store a person. Only within a turn, so that one person never gets two pseudonyms."""
        ...

    async def add_entries(self, entries: Sequence[NewEntry]) -> None:
        """Store entries. Only within a turn."""
        ...

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        """Return the stored hashes of these subtrees, without those that are not there; at level 0 of entries."""
        ...

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        """Store the hashes of subtrees that have become perfect. Only within a turn."""
        ...

    async def entries(self, filters: Filters, *, actor_ids: Collection[str], after: int, limit: int) -> Sequence[Entry]:
        """Return entries by sequence, from the one after `after`; `actor_ids` are the forms the actor may have."""
        ...

    async def size(self) -> int:
        """Return the sequence that comes next."""
        ...

    async def lines(self, start: int, end: int, *, limit: int) -> Sequence[Line]:
        """Return entries by sequence as they were hashed, from `start` on and before `end`."""
        ...

    async def forget_person(self, lookups: Sequence[bytes], *, told_at: int) -> None:
        """Delete the person stored under one of these digests, if there is one.

        Only within the turn in which the entry at sequence `told_at` said so.
        """
        ...

    async def note_forgotten(self, lookups: Sequence[bytes], *, time: datetime) -> None:
        """Note when the person of these digests was forgotten; the last time counts. Kept as long as events are."""
        ...

    async def forgotten(self, lookups: Collection[bytes]) -> Mapping[bytes, datetime]:
        """Return when those of them were forgotten that were lately."""
        ...

    async def strike_from_dead_letters(self, customer_id: str) -> None:
        """Take a customer out of the events that could not be taken."""
        ...

    async def persons_named(self, pseudonyms: Collection[str]) -> Mapping[str, Person]:
        """Return the persons that were not forgotten yet, by pseudonym."""
        ...


class Log(Protocol):
    """The stored log. Raises ServiceUnavailable while it cannot be reached; what was to be added may be added again."""

    def transaction(self) -> AbstractAsyncContextManager[LogTransaction]:
        """Begin a transaction; it is committed when the block ends, and nothing happened when the block raises."""
        ...


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it lies there, nothing of it checked."""

    sequence: int
    canonical: str
    leaf_hash: bytes


class TreeReading(Protocol):
    """A look at the stored tree. What is there never changes, so that one look needs no snapshot."""

    async def entry_count(self) -> int:
        """Return how many entries the log has: one more than the last one's sequence."""
        ...

    async def filled(self) -> int:
        """Return how many entries the stored subtrees of two entries reach; a tree of one more needs no other."""
        ...

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        """Return the stored hashes of these subtrees, without those that are not there; at level 0 of entries."""
        ...

    async def stored_entries(self, start: int, *, limit: int) -> Sequence[StoredEntry]:
        """Return entries by sequence, from `start` on."""
        ...


class TreeFilling(TreeReading, Protocol):
    """A turn in the log to add to its tree what is missing. Durable once it ends well."""

    async def leaf_hashes(self, start: int, *, limit: int) -> Sequence[bytes]:
        """Return the leaf hashes of so many sequences from `start` on: fewer where entries are missing."""
        ...

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        """Store the hashes of subtrees."""
        ...


class Tree(Protocol):
    """The Merkle tree over the log. Raises ServiceUnavailable while it cannot be reached."""

    def reading(self) -> AbstractAsyncContextManager[TreeReading]:
        """Look at the tree; nobody is kept waiting."""
        ...

    def filling(self) -> AbstractAsyncContextManager[TreeFilling]:
        """Wait until nobody appends, and keep others waiting until the block ends."""
        ...


class CheckpointExists(Exception):
    """A checkpoint of this size was published before; nothing was written."""


class CheckpointStore(Protocol):
    """Where signed checkpoints are published, each once. Raises CheckpointStoreUnavailable when it does not answer."""

    async def publish(self, size: int, note: str) -> None:
        """Publish the checkpoint of a size. Raises CheckpointExists."""
        ...

    async def read(self, size: int) -> str:
        """Return a published checkpoint. Raises CheckpointMissing."""
        ...

    async def newest_size(self) -> int | None:
        """Return the largest published size; None when nothing was published."""
        ...

    def notes(self) -> AsyncIterator[tuple[int, str]]:
        """Yield every published checkpoint with the size that it was published for, the smallest first.

        One that is taken away meanwhile is the empty text, which is no note.
        """
        ...


class CheckpointMissing(Exception):
    """There is no checkpoint of this size."""


class Notary(Protocol):
    """The log's signing keys."""

    @property
    def verifier_keys(self) -> Sequence[str]:
        """Return the public keys as C2SP verifier keys, the one of the active version first."""
        ...

    def sign(self, text: str) -> str:
        """Return the text as a signed note."""
        ...

    def open(self, note: str) -> str:
        """Return the text of a note that one of our keys has signed. Raises NoteUnproven."""
        ...


class NoteUnproven(Exception):
    """No key of ours has signed this note, or a signature under one of their names is wrong."""


class PersonKeys(Protocol):
    """Keys of persons, all of them under the log's own secret."""

    def lookups(self, actor_type: ActorType, actor_id: str) -> Sequence[bytes]:
        """Return the digests under which a person may be stored: the active secret's first, then the retained ones'."""
        ...

    def new_person(self) -> Person:
        """Make up a pseudonym and a key."""
        ...

    def close_personal(self, person: Person, actor: Actor) -> str:
        """Encrypt what is personal about an actor under the person's key."""
        ...

    def open_personal(self, person: Person, personal: str, actor_type: ActorType) -> Actor:
        """Decrypt it. Raises PersonalUnreadable when it was changed, moved to another person, or its key is gone."""
        ...

    def request_digest(self, person: Person, told: bytes) -> bytes:
        """Return a digest of a message about a person that proves nothing once the person's key is gone."""
        ...


class PersonalUnreadable(Exception):
    """The personal part of an entry does not open."""
