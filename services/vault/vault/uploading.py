"""The upload key: what a person's page encrypts a game key to, so that nothing between it and vault can read it.

upload key      a P-256 key pair for each version of KEY_ENCRYPTION_SECRET, derived and never stored:
                d = int(HKDF-SHA-256(secret, info "keyferry vault upload key v1", 48 bytes)) mod (n - 1) + 1
                kid = the version, such as v2
uploaded        compact JWE (RFC 7516), alg ECDH-ES+A256KW, enc A256GCM, to that key, whose protected header is
                {"alg", "enc", "kid", "epk", "order_id", "item_id", "request_id"} and nothing else
"""

import base64
import json
import uuid
from collections.abc import Mapping

from chassis.errors import FieldViolation
from chassis.jwe import jwe_registry
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.jwk import ECKey

from vault.domain.key import MOST_KEY_BYTES
from vault.errors import UploadMismatch, UploadUnreadable

UPLOAD_ALG = "ECDH-ES+A256KW"
UPLOAD_ENC = "A256GCM"
BOUND = ("order_id", "item_id", "request_id")
_HEADER = frozenset({"alg", "enc", "kid", "epk", *BOUND})
_REGISTRY = jwe_registry(UPLOAD_ALG, UPLOAD_ENC, most_plaintext_bytes=MOST_KEY_BYTES, private_headers=BOUND)
_INFO = b"keyferry vault upload key v1"
# 128 bits more than the order has: what the reduction prefers, it prefers by less than 2^-128 (FIPS 186-5, A.2.1). RFC
# 9180 draws again instead until a candidate fits, which is as good and needs a loop.
_SEED_BYTES = 48
_COORDINATE_BYTES = 32
# The order n of P-256's base point (SEC 2, section 2.4.2).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class UploadKeys:
    """The key pairs of all retained versions. Every replica with the same secret has the same ones."""

    def __init__(self, keyring: Keyring) -> None:
        self._active = keyring.active
        self._keys = {version: _key_pair(secret) for version, secret in keyring.versions.items()}

    def public_jwk(self) -> bytes:
        """Return the present public key as a JWK (RFC 7517)."""
        public = self._keys[self._active].as_dict(private=False)
        return json.dumps({name: public[name] for name in ("kty", "crv", "x", "y")} | {"kid": self._active}).encode()

    def open(self, token: str, bound: Mapping[str, str]) -> SecretBytes:
        """Open an uploaded key that must be bound to this order, line and request.

        Raises UploadUnreadable, which says the same whatever is wrong, so that nobody learns anything by trying; and
        UploadMismatch with the fields that are another's, once it is known to be authentic.
        """
        try:
            opened = jwe.decrypt_compact(token, lambda asked: self._keys[asked.headers()["kid"]], registry=_REGISTRY)
        except Exception:  # noqa: BLE001 # a stranger's bytes: whatever a library trips over in them, they are unreadable
            raise _unreadable() from None
        if opened.plaintext is None or opened.protected.keys() != _HEADER:
            raise _unreadable()
        _check_bound(opened.protected, bound)
        return SecretBytes(opened.plaintext)


def _key_pair(secret: SecretBytes) -> ECKey:
    seed = HKDF(algorithm=SHA256(), length=_SEED_BYTES, salt=None, info=_INFO).derive(secret.expose())
    scalar = int.from_bytes(seed) % (_ORDER - 1) + 1
    public = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
    return ECKey.import_key(
        {"kty": "EC", "crv": "P-256", "x": _encode(public.x), "y": _encode(public.y), "d": _encode(scalar)}
    )


def _encode(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(_COORDINATE_BYTES)).rstrip(b"=").decode()


def _unreadable() -> UploadUnreadable:
    fault = FieldViolation("key_jwe", "must be a key encrypted to the present upload key; ask for it and encrypt anew")
    return UploadUnreadable(f"{fault.field}: {fault.description}", field_violations=[fault])


def _check_bound(header: Mapping[str, object], bound: Mapping[str, str]) -> None:
    faults = [
        FieldViolation(field, "is not what the uploaded key was made for")
        for field in BOUND
        if _canonical(field, header[field]) != bound[field]
    ]
    if faults:
        listing = "; ".join(f"{fault.field}: {fault.description}" for fault in faults)
        raise UploadMismatch(listing, field_violations=faults)


def _canonical(field: str, value: object) -> object:
    """A request id is a UUID, however it is spelled; the request's own was read the same way."""
    if field != "request_id" or not isinstance(value, str):
        return value
    try:
        return str(uuid.UUID(value))
    except ValueError:
        return value
