"""Cookies that only the edge can read or make: JWE, `dir` and A256GCM, under the session secret."""

import json
from collections.abc import Mapping

from chassis.keyring import Keyring
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.responses import Response

# Browsers drop a cookie above 4096 bytes without a word, name and attributes included.
MAXIMUM_COOKIE_CHARACTERS = 3800
_ALGORITHMS = ["dir", "A256GCM"]


class CookieSealer:
    """Seals one kind of cookie. Each purpose has its own keys, so that one kind never passes for another."""

    def __init__(self, keyring: Keyring, *, purpose: str) -> None:
        derived = keyring.derive(f"keyferry edge cookie {purpose}")
        self._active = derived.active
        self._keys = {version: OctKey.import_key(secret.expose()) for version, secret in derived.versions.items()}

    def seal(self, claims: Mapping[str, object]) -> str:
        """Return the cookie's value."""
        header = {"alg": "dir", "enc": "A256GCM", "kid": self._active}
        plaintext = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
        return jwe.encrypt_compact(header, plaintext, self._keys[self._active], algorithms=_ALGORITHMS)

    def open(self, value: str) -> Mapping[str, object] | None:
        """Return the claims, or None when the value was not made here, was changed, or is of a dropped version."""
        if len(value) > MAXIMUM_COOKIE_CHARACTERS or not value.isascii():
            return None
        for key in self._keys.values():
            try:
                opened = jwe.decrypt_compact(value, key, algorithms=_ALGORITHMS).plaintext
            except (JoseError, ValueError):
                continue
            claims = json.loads(opened or b"null")
            return claims if isinstance(claims, dict) else None
        return None


def put_cookie(response: Response, name: str, value: str, *, seconds: int) -> None:
    """Set a `__Host-` cookie: this host only, HTTPS only, out of reach for scripts, not sent along from other sites."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def drop_cookie(response: Response, name: str) -> None:
    """Remove a `__Host-` cookie."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")
