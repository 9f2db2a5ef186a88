"""A person whose identity is proven."""

from collections.abc import Mapping
from dataclasses import dataclass

# Fulfillment keeps a customer's id and the audit log an actor's in this many characters.
MAXIMUM_SUBJECT = 255
MAXIMUM_EMAIL = 320
# Only shown. A session's cookie has room for 3800 characters, and a browser drops a longer one without a word.
MAXIMUM_NAME = 80
MAXIMUM_LOCALE = 35


@dataclass(frozen=True, slots=True)
class Principal:
    """What a verified token says about its subject. `email` and `name` may be empty."""

    subject: str
    email: str
    name: str
    roles: tuple[str, ...]
    locale: str

    @classmethod
    def from_claims(cls, claims: Mapping[str, object]) -> "Principal":
        """Read verified claims. Optional claims of the wrong type count as absent."""
        roles = claims.get("roles")
        return cls(
            subject=_text(claims, "sub", MAXIMUM_SUBJECT),
            email=_text(claims, "email", MAXIMUM_EMAIL),
            name=_text(claims, "name", MAXIMUM_NAME),
            roles=tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else (),
            locale=_text(claims, "locale", MAXIMUM_LOCALE),
        )


def _text(claims: Mapping[str, object], name: str, limit: int) -> str:
    value = claims.get(name)
    # JSON can spell half a surrogate pair, which no encoding further on can carry.
    return value.encode("utf-8", "replace").decode()[:limit] if isinstance(value, str) else ""
