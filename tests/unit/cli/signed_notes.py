"""Signs checkpoints as a log does, from the words of RFC 6962 and C2SP and from nothing of the product."""

import base64
import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EM_DASH = "\u2014"


def merkle_tree_hash(entries: Sequence[bytes]) -> bytes:
    """Return MTH(D[n]) of RFC 6962 section 2.1, as it is defined there."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = _split(len(entries))
    return hashlib.sha256(b"\x01" + merkle_tree_hash(entries[:k]) + merkle_tree_hash(entries[k:])).digest()


def consistency_proof(older: int, entries: Sequence[bytes]) -> list[bytes]:
    """Return PROOF(m, D[n]) of RFC 6962 section 2.1.2, as it is defined there."""
    return _subproof(older, entries, whole=True)


def _subproof(m: int, entries: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if m == len(entries):
        return [] if whole else [merkle_tree_hash(entries)]
    k = _split(len(entries))
    if m <= k:
        return [*_subproof(m, entries[:k], whole=whole), merkle_tree_hash(entries[k:])]
    return [*_subproof(m - k, entries[k:], whole=False), merkle_tree_hash(entries[:k])]


def _split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


class LogKey:
    """A log's signing key."""

    def __init__(self, name: str = "audit.example.com") -> None:
        self.name = name
        self._key = Ed25519PrivateKey.generate()
        material = b"\x01" + self._key.public_key().public_bytes_raw()
        self._id = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
        self.vkey = f"{name}+{self._id.hex()}+{base64.b64encode(material).decode()}"

    def line(self, text: str) -> str:
        """Return the signature line for a text."""
        signature = base64.b64encode(self._id + self._key.sign(text.encode())).decode()
        return f"{EM_DASH} {self.name} {signature}\n"

    def checkpoint(self, size: int, root: bytes, *, origin: str = "") -> bytes:
        """Return a signed checkpoint."""
        text = f"{origin or self.name}\n{size}\n{base64.b64encode(root).decode()}\n"
        return f"{text}\n{self.line(text)}".encode()

    def checkpoint_of(self, entries: Sequence[bytes]) -> bytes:
        """Return a signed checkpoint over entries."""
        return self.checkpoint(len(entries), merkle_tree_hash(entries))
