"""Checks the one-time public key that a caller wants a key encrypted to (RFC 7517, RFC 7518 6.2)."""

import base64
import json
import re
from collections.abc import Mapping

_COORDINATE_BYTES = 32
_BASE64URL_COORDINATE = re.compile(r"[A-Za-z0-9_-]{43}")
# Members that a public key may carry and that change nothing here; they are not passed on.
IGNORED_MEMBERS = frozenset({"kid", "use", "alg", "key_ops", "ext"})

# The curve P-256 (FIPS 186-5): y^2 = x^3 - 3x + B over the field of P.
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


class BadRecipient(ValueError):
    """The JWK cannot be used; `field` names the member at fault."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.field = field
        self.description = description


def canonical_recipient(jwk: Mapping[str, object]) -> bytes:
    """Return the public P-256 key as canonical JSON, so that a repeat of the request is byte for byte the same.

    A point off the curve would let its sender learn about the other side's one-time key, and a private part has no
    business on the wire: both are refused. Raises BadRecipient.
    """
    if "d" in jwk:
        raise BadRecipient("d", "a private key was sent; make a new key pair and send only its public part")
    for name, wanted in (("kty", "EC"), ("crv", "P-256")):
        if jwk.get(name) != wanted:
            raise BadRecipient(name, f"must be {wanted}")
    unknown = sorted(set(jwk) - {"kty", "crv", "x", "y"} - IGNORED_MEMBERS)
    if unknown:
        raise BadRecipient("", "has a member that does not belong to a public P-256 key")
    x, y = _coordinate(jwk, "x"), _coordinate(jwk, "y")
    if (y * y - (x * x * x - 3 * x + _B)) % _P:
        raise BadRecipient("", "is not a point of P-256")
    public = {"crv": "P-256", "kty": "EC", "x": jwk["x"], "y": jwk["y"]}
    return json.dumps(public, separators=(",", ":"), sort_keys=True).encode()


def _coordinate(jwk: Mapping[str, object], name: str) -> int:
    text = jwk.get(name)
    if not isinstance(text, str) or not _BASE64URL_COORDINATE.fullmatch(text):
        raise BadRecipient(name, f"must be base64url of {_COORDINATE_BYTES} bytes")
    raw = base64.urlsafe_b64decode(text + "=")
    if base64.urlsafe_b64encode(raw).decode() != text + "=":
        # The last character has two bits to spare; a strict reader further in would refuse it.
        raise BadRecipient(name, f"must be base64url of {_COORDINATE_BYTES} bytes")
    number = int.from_bytes(raw, "big")
    if number >= _P:
        raise BadRecipient(name, "is too large for P-256")
    return number
