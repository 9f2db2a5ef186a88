"""Verifies signed tokens of the issuer: bearer access tokens and ID tokens (RFC 7519, RFC 8725, OIDC Core 3.1.3.7).

The header is used for two things only: to pick one of the algorithms we allow, and to name a key that we already have
from the issuer. `jku`, `x5u`, `x5c` and `jwk` in it are never looked at.
"""

import binascii
import json
import re
from collections.abc import Mapping
from typing import Protocol

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode

from gateway.auth.principal import MAXIMUM_SUBJECT
from gateway.errors import TokenInvalid

ALGORITHMS = ("ES256", "RS256")
# Clocks of two well-kept machines differ by less.
LEEWAY_SECONDS = 30
MAXIMUM_TOKEN_CHARACTERS = 8192
ACCESS_TOKEN_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
ID_TOKEN_TYPES = frozenset({"jwt"})

BEYOND_ANY_DATE = 1e12
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

SigningKey = ECKey | RSAKey


class SigningKeys(Protocol):
    """The issuer's public keys."""

    async def find(self, key_id: str, algorithm: str) -> SigningKey | None:
        """Return the key of this name for this algorithm. Raises IssuerUnavailable when none was ever read."""
        ...


class TokenVerifier:
    """Checks signature and claims of tokens of one issuer."""

    def __init__(self, keys: SigningKeys, *, issuer: str) -> None:
        self._keys = keys
        self._issuer = issuer

    async def verify_access_token(self, token: str, *, audience: str, now: float) -> Mapping[str, object]:
        """Return the claims of a bearer token that is good for this audience now. Raises TokenInvalid."""
        claims = await self._verify(token, ACCESS_TOKEN_TYPES, audience, now)
        # Only ID tokens carry a nonce: one of them opens a session at its client, never an API.
        if "nonce" in claims:
            raise TokenInvalid("the token is not an access token")
        return claims

    async def verify_id_token(self, token: str, *, client_id: str, nonce: str, now: float) -> Mapping[str, object]:
        """Return the claims of the ID token that answers our own login request. Raises TokenInvalid."""
        claims = await self._verify(token, ID_TOKEN_TYPES, client_id, now)
        audience = claims["aud"]
        if claims.get("nonce") != nonce:
            raise TokenInvalid("the token answers another login")
        shared = isinstance(audience, list) and len(audience) > 1
        if (shared or "azp" in claims) and claims.get("azp") != client_id:
            raise TokenInvalid("the token was issued to another client")
        return claims

    async def _verify(self, token: str, types: frozenset[str], audience: str, now: float) -> Mapping[str, object]:
        algorithm, key_id = _read_header(token, types)
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            raise TokenInvalid("the token is signed with a key that the issuer does not publish")
        try:
            payload = jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
            claims = json.loads(payload)
        except (JoseError, ValueError, RecursionError):
            raise TokenInvalid("the token's signature does not hold") from None
        if not isinstance(claims, dict):
            raise TokenInvalid("the token carries no claims")
        self._check_claims(claims, audience, now)
        return claims

    def _check_claims(self, claims: Mapping[str, object], audience: str, now: float) -> None:
        if claims.get("iss") != self._issuer:
            raise TokenInvalid("the token is of another issuer")
        named = claims.get("aud")
        audiences = [named] if isinstance(named, str) else named
        if not isinstance(audiences, list) or audience not in audiences:
            raise TokenInvalid("the token is for another audience")
        expires = _instant(claims, "exp")
        if expires is None or expires <= now - LEEWAY_SECONDS:
            raise TokenInvalid("the token has expired")
        for name in ("nbf", "iat"):
            begins = _instant(claims, name)
            if begins is not None and begins > now + LEEWAY_SECONDS:
                raise TokenInvalid("the token is not valid yet")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= MAXIMUM_SUBJECT:
            raise TokenInvalid("the token names no subject")


def _read_header(token: str, types: frozenset[str]) -> tuple[str, str]:
    """Return algorithm and key id of a token whose header asks for nothing that we do not do."""
    if len(token) > MAXIMUM_TOKEN_CHARACTERS or not _COMPACT.fullmatch(token):
        raise TokenInvalid("the token is not a signed JWT")
    try:
        header = json.loads(urlsafe_b64decode(token.partition(".")[0].encode()))
    except (ValueError, binascii.Error, RecursionError):
        raise TokenInvalid("the token is not a signed JWT") from None
    if not isinstance(header, dict) or "crit" in header or "b64" in header:
        raise TokenInvalid("the token's header asks for an extension")
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if algorithm not in ALGORITHMS:
        raise TokenInvalid("the token's algorithm is not allowed")
    if not isinstance(kind, str) or kind.lower() not in types:
        raise TokenInvalid("the token is of another type")
    if not isinstance(key_id, str) or not key_id:
        raise TokenInvalid("the token names no key")
    return algorithm, key_id


def _instant(claims: Mapping[str, object], name: str) -> float | None:
    """Return a NumericDate claim; None when it is absent. Raises TokenInvalid when it is no finite number."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < BEYOND_ANY_DATE:
        raise TokenInvalid("the token's times are not numbers")
    return float(value)
