"""How keys are sealed, wrapped, bound and handed over. Every byte layout of vault is drawn here.

sealed object   compact JWE (RFC 7516), readable by any JOSE library that has the DEK:
                {"alg":"dir","enc":"A256GCM","kid":key_id,"cty":content type,"typ":binding}
                . (no encrypted key) . 96-bit nonce . ciphertext . 128-bit tag
binding         a media type with parameters (RFC 7515 section 4.1.9), so that no library meets a header it does not
                know: keyferry-key;order=digest;owner=digest
wrapped DEK     nonce (12) || AES-256-GCM(KEK, DEK) (32) || tag (16),
                AAD = "keyferry/dek/v1" 0x00 key_id 0x00 KEK version
                or, wrapped by Transit, its ciphertext as it gave it, see adapters/kek_transit.py; the AAD is the same
digest          version "." base64url(HMAC-SHA-256(secret of that version and purpose, label 0x00 value))
upload key      see uploading.py
handed over     compact JWE, alg ECDH-ES+A256KW, enc A256GCM, to a one-time P-256 key of the recipient
"""

import base64
import hmac
import json
import os
from typing import Any

from chassis.jwe import jwe_registry
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from vault.domain.kek import KekVersions
from vault.domain.key import MOST_KEY_BYTES, Binding, WrappedDek
from vault.errors import SecretVersionMissing

DEK_BYTES = 32
NONCE_BYTES = 12
MOST_RECIPIENT_BYTES = 1024
_COORDINATE_BYTES = 32
_RECIPIENT_ALG = "ECDH-ES+A256KW"
_REGISTRY = jwe_registry("dir", _RECIPIENT_ALG, "A256GCM", most_plaintext_bytes=MOST_KEY_BYTES)


class DoesNotOpen(Exception):
    """Something that we stored does not open: it, or what should open it, was changed."""


class BadRecipient(ValueError):
    """The recipient's public key cannot be used. The message says why."""


class Kek:
    """Wraps DEKs under the active KEK and unwraps them under any retained one."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    @property
    def versions(self) -> KekVersions:
        """The versions that are in the keyring."""
        return KekVersions(self._keyring.active, frozenset(self._keyring.versions))

    def wrap(self, dek: SecretBytes, key_id: str) -> WrappedDek:
        """Wrap a DEK for one key; it unwraps for no other."""
        version = self._keyring.active
        nonce = os.urandom(NONCE_BYTES)
        box = AESGCM(self._keyring.versions[version].expose())
        return WrappedDek(nonce + box.encrypt(nonce, dek.expose(), dek_aad(key_id, version)), version)

    def unwrap(self, wrapped: WrappedDek, key_id: str) -> SecretBytes:
        """Unwrap a DEK. Raises DoesNotOpen when it is not this key's, SecretVersionMissing when its KEK is not here."""
        kek = _version(self._keyring, wrapped.kek_version)
        nonce, data = wrapped.data[:NONCE_BYTES], wrapped.data[NONCE_BYTES:]
        try:
            return SecretBytes(AESGCM(kek.expose()).decrypt(nonce, data, dek_aad(key_id, wrapped.kek_version)))
        except (InvalidTag, ValueError):
            raise DoesNotOpen("the wrapped DEK does not open") from None


def dek_aad(key_id: str, version: str) -> bytes:
    """Return what a wrapped DEK is bound to, whoever wraps it."""
    return b"\0".join((b"keyferry/dek/v1", key_id.encode(), version.encode()))


class Digests:
    """Keyed digests under every retained version of one secret: of game keys, of orders, of owners."""

    def __init__(self, keyring: Keyring) -> None:
        self._fingerprints = keyring.derive("fingerprint")
        self._bindings = keyring.derive("binding")

    @property
    def versions(self) -> frozenset[str]:
        """Return the versions that are at hand."""
        return frozenset(self._fingerprints.versions)

    def fingerprints(self, content_type: str, plaintext: SecretBytes) -> list[str]:
        """Return a key's fingerprints, the active version's first."""
        label = f"key/{content_type}"
        return [_digest(self._fingerprints, version, label, plaintext.expose()) for version in self._versions()]

    def bind(self, order_id: str, customer_id: str) -> Binding:
        """Return the binding of a new key."""
        active = self._bindings.active
        return Binding(
            order=_digest(self._bindings, active, "order", order_id.encode()),
            owner=_digest(self._bindings, active, "owner", customer_id.encode()),
        )

    def has_fingerprint(self, stored: str, content_type: str, plaintext: SecretBytes) -> bool:
        """Tell whether a stored fingerprint is this key's, in constant time. Raises SecretVersionMissing."""
        return _same(self._fingerprints, stored, f"key/{content_type}", plaintext.expose())

    def matches(self, binding: Binding, order_id: str, customer_id: str) -> bool:
        """Tell whether a key is bound to this order and this owner, in constant time. Raises SecretVersionMissing."""
        same_order = _same(self._bindings, binding.order, "order", order_id.encode())
        same_owner = _same(self._bindings, binding.owner, "owner", customer_id.encode())
        return same_order and same_owner

    def owners(self, customer_id: str) -> list[str]:
        """Return an owner's digests, the active version's first."""
        return [_digest(self._bindings, version, "owner", customer_id.encode()) for version in self._versions()]

    def traits(self, customer_id: str, kind: str, trait: str) -> list[str]:
        """Return the digests of a trait of an owner's access, the active version's first; other owners' are others."""
        value = customer_id.encode() + b"\0" + trait.encode()
        return [_digest(self._bindings, version, f"access/{kind}", value) for version in self._versions()]

    def _versions(self) -> list[str]:
        active = self._fingerprints.active
        return [active, *(version for version in self._fingerprints.versions if version != active)]


def _same(keyring: Keyring, stored: str, label: str, value: bytes) -> bool:
    return hmac.compare_digest(stored, _digest(keyring, stored.partition(".")[0], label, value))


def _digest(keyring: Keyring, version: str, label: str, value: bytes) -> str:
    mac = hmac.digest(_version(keyring, version).expose(), label.encode() + b"\0" + value, "sha256")
    return f"{version}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _version(keyring: Keyring, version: str) -> SecretBytes:
    try:
        return keyring.versions[version]
    except KeyError:
        raise SecretVersionMissing(
            "a key is under a version of a secret that this replica does not have", metadata={"version": version}
        ) from None


def new_dek() -> SecretBytes:
    """Return a fresh DEK. It seals one key: only the few repeats of that key's sealing draw a nonce under it."""
    return SecretBytes(os.urandom(DEK_BYTES))


def _sealed_header(key_id: str, content_type: str, binding: Binding) -> dict[str, Any]:
    bound = f"keyferry-key;order={binding.order};owner={binding.owner}"
    return {"alg": "dir", "enc": "A256GCM", "kid": key_id, "cty": content_type, "typ": bound}


def seal(plaintext: SecretBytes, dek: SecretBytes, *, key_id: str, content_type: str, binding: Binding) -> bytes:
    """Return the sealed object of a key."""
    header = _sealed_header(key_id, content_type, binding)
    return jwe.encrypt_compact(header, plaintext.expose(), _oct_key(dek), registry=_REGISTRY).encode()


def open_sealed(sealed: bytes, dek: SecretBytes, *, key_id: str, content_type: str, binding: Binding) -> SecretBytes:
    """Open a sealed object. Raises DoesNotOpen when a bit of it, its DEK or its binding is another."""
    try:
        opened = jwe.decrypt_compact(sealed.decode("ascii"), _oct_key(dek), registry=_REGISTRY)
    except (JoseError, ValueError, TypeError, KeyError):
        raise DoesNotOpen("the sealed object does not open") from None
    if opened.protected != _sealed_header(key_id, content_type, binding) or opened.plaintext is None:
        raise DoesNotOpen("the sealed object is another key's")
    return SecretBytes(opened.plaintext)


def read_recipient(jwk: bytes) -> ECKey:
    """Read a one-time public key: EC, P-256, on the curve, and nothing private. Raises BadRecipient."""
    if len(jwk) > MOST_RECIPIENT_BYTES:
        raise BadRecipient("must be a small JWK")
    try:
        parsed = json.loads(jwk)
    except (ValueError, RecursionError):
        raise BadRecipient("must be a JWK as UTF-8 JSON") from None
    if not isinstance(parsed, dict) or parsed.get("kty") != "EC" or parsed.get("crv") != "P-256":
        raise BadRecipient("must have kty EC and crv P-256")
    if "d" in parsed:
        raise BadRecipient("must hold the public part only; make a new key pair, this one is known now")
    if parsed.get("use", "enc") != "enc" or parsed.get("alg", _RECIPIENT_ALG) != _RECIPIENT_ALG:
        raise BadRecipient(f"must be for use enc and alg {_RECIPIENT_ALG}, where it says what it is for")
    coordinates = {name: parsed.get(name) for name in ("x", "y")}
    if not all(_is_coordinate(value) for value in coordinates.values()):
        raise BadRecipient("must have x and y as base64url of 32 bytes each")
    try:
        return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": str(parsed["x"]), "y": str(parsed["y"])})
    except (JoseError, ValueError):
        raise BadRecipient("must be a point on P-256") from None


def _is_coordinate(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return False
    return len(raw) == _COORDINATE_BYTES


def hand_over(secret: SecretBytes, recipient: ECKey, *, content_type: str, key_id: str) -> str:
    """Return a secret as a compact JWE that only the recipient opens."""
    header = {"alg": _RECIPIENT_ALG, "enc": "A256GCM", "cty": content_type, "kid": key_id}
    return jwe.encrypt_compact(header, secret.expose(), recipient, registry=_REGISTRY)


def _oct_key(dek: SecretBytes) -> OctKey:
    return OctKey.import_key(dek.expose())
