"""Reads vault's formats from the RFCs alone, with primitives of `cryptography` only."""

import base64
import hashlib
import hmac
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read_direct(token: str, key: bytes) -> tuple[dict[str, Any], bytes]:
    """Open a compact JWE with `alg: dir` (RFC 7516 section 5.2, RFC 7518 sections 4.5 and 5.3)."""
    header, encrypted_key, nonce, ciphertext, tag = token.split(".")
    assert encrypted_key == ""
    plaintext = AESGCM(key).decrypt(decode(nonce), decode(ciphertext) + decode(tag), header.encode())
    return json.loads(decode(header)), plaintext


def read_agreed(token: str, private_jwk: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """Open a compact JWE with `alg: ECDH-ES+A256KW` (RFC 7518 section 4.6)."""
    header_part, encrypted_key, nonce, ciphertext, tag = token.split(".")
    header = json.loads(decode(header_part))
    wrapping = agree(private_jwk, header["epk"], algorithm=header["alg"], key_bytes=32)
    content_key = aes_key_unwrap(wrapping, decode(encrypted_key))
    plaintext = AESGCM(content_key).decrypt(decode(nonce), decode(ciphertext) + decode(tag), header_part.encode())
    return header, plaintext


def write_agreed(header: dict[str, Any], plaintext: bytes, public_jwk: dict[str, str], **changes: Any) -> str:
    """Make a compact JWE with `alg: ECDH-ES+A256KW`, `enc: A256GCM` under a fresh `epk`; `changes` spoil its header."""
    ephemeral = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    own = {"kty": "EC", "crv": "P-256", **{name: _number(getattr(ephemeral.public_numbers, name)) for name in "xy"}}
    private = {**own, "d": _number(ephemeral.private_value)}
    whole = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": own, **header, **changes}
    part = encode(json.dumps({name: value for name, value in whole.items() if value is not None}).encode())
    content_key, nonce = os.urandom(32), os.urandom(12)
    wrapped = aes_key_wrap(agree(private, public_jwk, algorithm="ECDH-ES+A256KW", key_bytes=32), content_key)
    box = AESGCM(content_key).encrypt(nonce, plaintext, part.encode())
    return ".".join((part, encode(wrapped), encode(nonce), encode(box[:-16]), encode(box[-16:])))


def _number(value: int) -> str:
    return encode(value.to_bytes(32))


def agree(
    private_jwk: dict[str, str],
    public_jwk: dict[str, str],
    *,
    algorithm: str,
    key_bytes: int,
    apu: bytes = b"",
    apv: bytes = b"",
) -> bytes:
    """Derive a key (NIST SP 800-56A Concat KDF, one round)."""
    private = ec.EllipticCurvePrivateNumbers(int.from_bytes(decode(private_jwk["d"])), point(private_jwk)).private_key()
    shared = private.exchange(ec.ECDH(), point(public_jwk).public_key())
    parts = b"".join(len(part).to_bytes(4) + part for part in (algorithm.encode(), apu, apv))
    return hashlib.sha256((1).to_bytes(4) + shared + parts + (key_bytes * 8).to_bytes(4)).digest()[:key_bytes]


def point(jwk: dict[str, str]) -> ec.EllipticCurvePublicNumbers:
    x, y = (int.from_bytes(decode(jwk[name])) for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())


def keyed_digest(secret: bytes, purpose: str, label: str, value: bytes) -> bytes:
    """Compute HMAC-SHA-256 under a key derived for one purpose (RFC 5869)."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)
    return hmac.digest(key, label.encode() + b"\0" + value, "sha256")
