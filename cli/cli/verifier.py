"""Checks an export of the audit log against signed checkpoints, trusting neither the service nor its database.

This file, Python 3.11 and the package `cryptography` are all it needs. By itself, as `keyferry audit verify` does it:

    python verifier.py --export log.ndjson --checkpoint checkpoint.txt --public-key 'name+1a2b3c4d+AQ...'

An export has one line for each entry, by sequence from 0: the canonical entry, byte for byte.

    leaf  = SHA-256(0x00 || line without its newline)         RFC 6962 section 2.1, RFC 9162 section 2.1.1
    node  = SHA-256(0x01 || left || right)
    root  = of all leaves; of none SHA-256 of nothing

A checkpoint (c2sp.org/tlog-checkpoint) is a signed note (c2sp.org/signed-note) that says how many entries there were
and what their root was. Whatever of those entries was changed, deleted, put elsewhere, inserted or cut off since then
leads to another root, or to none. An inclusion proof for one entry is read in the form of c2sp.org/tlog-proof.

Memory: one hash for each power of two in the log's size.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# The largest entry that the log takes has some 40 kB. Without a bound a file without newlines would fill the memory.
LONGEST_LINE = 1 << 20
HASH_BYTES = 32
KEY_ID_BYTES = 4
ED25519 = b"\x01"
PROOF_HEADER = "c2sp.org/tlog-proof@v1"

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/=]+)")


class Refused(Exception):
    """What was shown is not what was signed: what is wrong and, where it can be known, at which sequence."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The log's key: its name, four bytes that tell it from others of this name, and the Ed25519 key."""

    name: str
    key_id: bytes
    key: Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Read a verifier key `name+hash+base64` (c2sp.org/signed-note). Raises Refused."""
        name, _, rest = text.strip().partition("+")
        digest, _, encoded = rest.partition("+")
        material = _base64(encoded, "the public key")
        if not name or re.search(r"\s", name) or material[:1] != ED25519 or len(material) != len(ED25519) + HASH_BYTES:
            raise Refused("the public key must read name+hash+base64 and be an Ed25519 key")
        key_id = hashlib.sha256(name.encode() + b"\n" + material).digest()[:KEY_ID_BYTES]
        if digest != key_id.hex():
            raise Refused("the public key's hash is not its own: it was copied wrongly")
        return cls(name, key_id, Ed25519PublicKey.from_public_bytes(material[1:]))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How many entries there were, and the root over them."""

    size: int
    root: bytes

    @classmethod
    def read(cls, note: bytes, key: PublicKey) -> "Checkpoint":
        """Read a checkpoint that this key has signed. Raises Refused."""
        text, blank, signatures = note.decode(errors="replace").rpartition("\n\n")
        if not blank or not signatures.endswith("\n"):
            raise Refused("the checkpoint is cut off: its text, an empty line and its signatures belong to it")
        _check_signature(text + "\n", signatures[:-1].split("\n"), key)
        lines = text.split("\n")
        if len(lines) < 3 or not all(lines) or not _SIZE.fullmatch(lines[1]):  # noqa: PLR2004 # origin, size, root
            raise Refused("the checkpoint must have an origin, a tree size and a root hash, each on its line")
        if lines[0] != key.name:
            raise Refused(f"the checkpoint is of another log: its origin is {lines[0]!r}, not {key.name!r}")
        return cls(int(lines[1]), _base64(lines[2], "the checkpoint's root hash", HASH_BYTES))


def _check_signature(text: str, lines: Sequence[str], key: PublicKey) -> None:
    """Raise Refused unless this key has signed. Those of other keys, of witnesses for instance, are passed over."""
    found = False
    for line in lines:
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise Refused("the checkpoint has a line among its signatures that is none")
        material = _base64(match[2], "a signature of the checkpoint")
        if match[1] != key.name or material[:KEY_ID_BYTES] != key.key_id:
            continue
        try:
            key.key.verify(material[KEY_ID_BYTES:], text.encode())
        except InvalidSignature:
            raise Refused("the checkpoint's signature does not hold") from None
        found = True
    if not found:
        raise Refused(f"the checkpoint is not signed by {key.name} with this public key")


def leaf_hash(line: bytes) -> bytes:
    """Return the leaf hash of an entry's line without its newline."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Tree:
    """The tree over the leaves so far, as the roots of its full subtrees: from the largest to the smallest."""

    size: int = 0
    _roots: list[bytes] = field(default_factory=list)

    def add(self, leaf: bytes) -> None:
        """Add the next leaf."""
        rest = self.size
        while rest & 1:
            leaf = node_hash(self._roots.pop(), leaf)
            rest >>= 1
        self._roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves."""
        if not self._roots:
            return hashlib.sha256().digest()
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


def verify_export(export: BinaryIO, checkpoints: Iterable[Checkpoint], *, tail: bool = False) -> tuple[int, int]:
    """Replay an export and compare with each checkpoint. Raises Refused at the first thing that is wrong.

    Returns how many entries the checkpoints cover, and how many stand after them: those are refused too unless `tail`
    allows them, for nobody has signed them yet.
    """
    due, tree, covered = sorted(checkpoints, key=lambda checkpoint: checkpoint.size), Tree(), 0
    for line in chain(_lines(export), [None]):
        while due and due[0].size == tree.size:
            if tree.root() != due[0].root:
                raise Refused(
                    f"sequences {covered} to {tree.size - 1}: what was signed is not what stands there; an entry of "
                    "them was changed, inserted, deleted or put elsewhere"
                )
            covered = due.pop(0).size
        if line is not None:
            _check_entry(line, tree.size)
            tree.add(leaf_hash(line))
    if due:
        raise Refused(f"sequence {tree.size} is missing: the export ends there, and {due[-1].size} entries were signed")
    if tree.size > covered and not tail:
        raise Refused(
            f"sequence {covered}: inserted, or newer than every checkpoint; take a newer one, or allow a tail"
        )
    return covered, tree.size - covered


def _lines(export: BinaryIO) -> Iterator[bytes]:
    """Yield lines without their newlines."""
    for number, line in enumerate(iter(lambda: export.readline(LONGEST_LINE + 1), b"")):
        if not line.endswith(b"\n"):
            raise Refused(f"sequence {number} is malformed: its line is cut off or too long")
        yield line[:-1]


def _sequence(line: bytes) -> int | None:
    """Return the sequence that an entry says it has; None for what is no entry."""
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    sequence = entry.get("sequence") if isinstance(entry, dict) else None
    return sequence if type(sequence) is int else None


def _check_entry(line: bytes, expected: int) -> None:
    """Raise Refused unless the line is an entry and stands in its place."""
    found = _sequence(line)
    if found is None:
        raise Refused(f"sequence {expected} is malformed: its line is not an entry")
    if found != expected:
        raise Refused(f"sequence {expected}: {found} stands in its place; entries were deleted, inserted or reordered")


def inclusion_holds(leaf: bytes, index: int, checkpoint: Checkpoint, path: Sequence[bytes]) -> bool:
    """Tell whether a leaf is in the tree of a checkpoint (RFC 9162 section 2.1.3.2)."""
    if index >= checkpoint.size:
        return False
    first, last, root = index, checkpoint.size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            root = node_hash(sibling, root)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and root == checkpoint.root


def consistency_holds(older: Checkpoint, newer: Checkpoint, path: Sequence[bytes]) -> bool:
    """Tell whether the tree of one checkpoint continues that of another (RFC 9162 section 2.1.4.2)."""
    if older.size in (0, newer.size):
        return not path and older.size <= newer.size and (older.size == 0 or older.root == newer.root)
    nodes = [older.root, *path] if older.size & (older.size - 1) == 0 else list(path)
    if older.size > newer.size or not nodes:
        return False
    first, last = older.size - 1, newer.size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_root = new_root = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_root, new_root = node_hash(node, old_root), node_hash(node, new_root)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            new_root = node_hash(new_root, node)
        first, last = first >> 1, last >> 1
    return last == 0 and old_root == older.root and new_root == newer.root


def verify_inclusion(export: BinaryIO, proof: bytes, key: PublicKey) -> int:
    """Check a proof for the entry of its index, which stands in the export; return the index. Raises Refused."""
    head, blank, note = proof.partition(b"\n\n")
    lines = [line for line in head.decode(errors="replace").split("\n") if not line.startswith("extra ")]
    index = lines[1].removeprefix("index ") if len(lines) > 1 else ""
    if lines[0] != PROOF_HEADER or not blank or not _SIZE.fullmatch(index):
        raise Refused(f"the proof must be in the form of {PROOF_HEADER}")
    path = [_base64(line, "a hash of the proof", HASH_BYTES) for line in lines[2:]]
    checkpoint = Checkpoint.read(note, key)
    line = next((line for line in _lines(export) if _sequence(line) == int(index)), b"")
    if not inclusion_holds(leaf_hash(line), int(index), checkpoint, path):
        raise Refused(f"sequence {index} is not in the export as it was signed, or the proof is not its proof")
    return int(index)


def verify(export: Path, notes: Sequence[Path], vkey: str, *, inclusion: Path | None = None, tail: bool = False) -> str:
    """Do what the command line asks and return what to say. Raises Refused and OSError."""
    key = PublicKey.parse(vkey)
    with export.open("rb") as file:
        if inclusion is not None:
            return f"OK: sequence {verify_inclusion(file, inclusion.read_bytes(), key)} is in the log"
        if not notes:
            raise Refused("nothing to compare with: name a checkpoint or an inclusion proof")
        covered, more = verify_export(file, [Checkpoint.read(note.read_bytes(), key) for note in notes], tail=tail)
    later = f"; {more} later ones are covered by no checkpoint" if more else ""
    return f"OK: {covered} entries are those that were signed{later}"


def _base64(text: str, what: str, length: int = 0) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused(f"{what} is not base64") from None
    if length and len(value) != length:
        raise Refused(f"{what} must have {length} bytes")
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check an export of the audit log.")
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, action="append")
    parser.add_argument("--inclusion", type=Path)
    parser.add_argument("--public-key", required=True)
    parser.add_argument("--tail", action="store_true", help="allow entries after the last checkpoint")
    asked = parser.parse_args()
    try:
        said = verify(
            asked.export, asked.checkpoint or [], asked.public_key, inclusion=asked.inclusion, tail=asked.tail
        )
        sys.stdout.write(said + "\n")
    except (Refused, OSError) as error:
        sys.exit(f"REFUSED: {error}")
