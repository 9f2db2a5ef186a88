"""Versioned 256-bit secrets with one active version, as `v2:<base64url>,v1:<base64url>`."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chassis.secret import SecretBytes

SECRET_BYTES = 32
# 32 random bytes show about 30 different values; 16 or fewer happens by chance once in 10^12 and by hand all the time.
LEAST_DISTINCT_BYTES = 16
# 32 random bytes are all printable ASCII once in 10^13, and what a person typed or a program printed always is.
_PRINTABLE = frozenset(range(0x20, 0x7F))
HOW_TO_MAKE_ONE = "make one with `openssl rand -base64 32 | tr +/ -_`"
_VERSION = re.compile(r"v[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class Keyring:
    """Every retained version of a secret; new work uses the active one."""

    active: str
    versions: Mapping[str, SecretBytes]

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Read a keyring; the first entry is the active one.

        Raises ValueError with a sentence that never repeats any part of a secret.
        """
        versions: dict[str, SecretBytes] = {}
        for position, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            version, separator, encoded = entry.partition(":")
            if not separator or not _VERSION.fullmatch(version):
                raise ValueError(f"entry {position} must read v<number>:<base64url of {SECRET_BYTES} bytes>")
            if version in versions:
                raise ValueError(f"version {version} stands there twice")
            secret = _decode(version, encoded)
            if (same := next((name for name, known in versions.items() if known == secret), None)) is not None:
                raise ValueError(f"versions {same} and {version} hold the same secret; {HOW_TO_MAKE_ONE} for each")
            versions[version] = secret
        if not versions:
            raise ValueError(f"at least one entry v<number>:<base64url of {SECRET_BYTES} bytes> is needed")
        return cls(active=next(iter(versions)), versions=versions)

    def derive(self, purpose: str) -> "Keyring":
        """Return a keyring of the same versions for one purpose only (HKDF, RFC 5869, with the purpose as info)."""
        return Keyring(
            active=self.active,
            versions={
                version: SecretBytes(
                    HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=purpose.encode()).derive(
                        secret.expose()
                    )
                )
                for version, secret in self.versions.items()
            },
        )


def _decode(version: str, encoded: str) -> SecretBytes:
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"version {version} is not base64url; {HOW_TO_MAKE_ONE}") from None
    if len(raw) != SECRET_BYTES:
        raise ValueError(f"version {version} holds {len(raw)} bytes instead of {SECRET_BYTES}; {HOW_TO_MAKE_ONE}")
    if len(set(raw)) < LEAST_DISTINCT_BYTES:
        raise ValueError(f"version {version} is too regular to be random; {HOW_TO_MAKE_ONE}")
    if _PRINTABLE.issuperset(raw):
        raise ValueError(f"version {version} is a text and not random bytes; {HOW_TO_MAKE_ONE}")
    return SecretBytes(raw)
