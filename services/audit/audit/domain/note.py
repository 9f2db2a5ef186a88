"""A signed note: a text and the signatures under it. C2SP signed-note (https://c2sp.org/signed-note).

    text, whose last byte is a line feed
    <empty line>
    — <key name> <base64 of key id (4) || signature (64)>          one line for each signature; the dash is U+2014

    key id       = SHA-256(key name || 0x0a || 0x01 || public key)[:4]          0x01 stands for Ed25519
    verifier key = <key name>+<hex of key id>+<base64 of 0x01 || public key>    what a verifier is given ("vkey")

A signature is over the text with its last line feed, without the empty line.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

ED25519 = b"\x01"
KEY_ID_BYTES = 4
PUBLIC_KEY_BYTES = 32
# As many as Go's reader takes; ours carry one for each version of the signing key.
MOST_SIGNATURES = 100
_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature under a note, and the key that it claims to be of."""

    key_name: str
    key_id: bytes
    signature: bytes


def is_key_name(text: str) -> bool:
    """Tell whether a text may name a key, and so an origin: no white space, no plus, nothing that does not print."""
    return bool(text) and text.isprintable() and "+" not in text and not any(letter.isspace() for letter in text)


def key_id(key_name: str, public_key: bytes) -> bytes:
    """Return the short name of an Ed25519 key."""
    return hashlib.sha256(key_name.encode() + b"\n" + ED25519 + public_key).digest()[:KEY_ID_BYTES]


def verifier_key(key_name: str, public_key: bytes) -> str:
    """Return what a verifier needs to know of an Ed25519 key."""
    encoded = base64.b64encode(ED25519 + public_key).decode()
    return f"{key_name}+{key_id(key_name, public_key).hex()}+{encoded}"


def read_verifier_key(text: str) -> tuple[str, bytes]:
    """Return the key name and the Ed25519 public key of a verifier key. Raises ValueError."""
    key_name, _, rest = text.partition("+")
    short, _, encoded = rest.partition("+")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        decoded = b""
    public_key = decoded.removeprefix(ED25519)
    if len(decoded) != len(ED25519) + PUBLIC_KEY_BYTES or key_id(key_name, public_key).hex() != short:
        raise ValueError("a verifier key reads name+hash+base64, for Ed25519")
    return key_name, public_key


def write_note(text: str, signatures: Sequence[NoteSignature]) -> str:
    """Put a text and its signatures together."""
    lines = [
        f"{_DASH}{each.key_name} {base64.b64encode(each.key_id + each.signature).decode()}\n" for each in signatures
    ]
    return f"{text}\n{''.join(lines)}"


def read_note(note: str) -> tuple[str, list[NoteSignature]]:
    """Take a note apart; nothing is proven yet. Raises ValueError."""
    text, separator, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not separator or lines.pop() or not 0 < len(lines) <= MOST_SIGNATURES:
        raise ValueError("a note is a text, an empty line and its signatures")
    return f"{text}\n", [_read_signature(line) for line in lines]


def _read_signature(line: str) -> NoteSignature:
    key_name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator or not is_key_name(key_name):
        raise ValueError("a signature line reads: dash, key name, signature")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("a signature is not base64") from None
    return NoteSignature(key_name, decoded[:KEY_ID_BYTES], decoded[KEY_ID_BYTES:])
