"""Keys of persons, and the JWE (RFC 7516) around what is personal in an entry.

What is stored of a person, all of it under keys derived (HKDF) from `KEYFERRY_AUDIT_SECRET`, each for one purpose:

    lookup       HMAC-SHA256(lookup key, actor type || 0x1f || actor id)                        32 bytes
    wrapped_key  nonce (12) || AES-256-GCM(wrap key, nonce, person key (32), AAD) || tag (16)   60 bytes
                 AAD = "keyferry audit person key" || 0x1f || secret version || 0x1f || pseudonym

In the entry, `personal` is a compact JWE under the person key:

    header   {"alg":"dir","enc":"A256GCM","kid":<pseudonym>}
    content  canonical JSON {"email","id","ip_address","user_agent"}

The header is authenticated and names the pseudonym, so that one person's data does not open as another's. Which entry
it stands in is bound by the entry's hash.
"""

import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Sequence

from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from audit.domain.canonical import canonical_json
from audit.domain.entry import Actor, ActorType
from audit.ports import Person, PersonalUnreadable

ALGORITHM = "dir"
ENCRYPTION = "A256GCM"
KEY_BYTES = 32
NONCE_BYTES = 12

_LOOKUP_PURPOSE = "keyferry audit person lookup"
_WRAP_PURPOSE = "keyferry audit person key"
_DIGEST_PURPOSE = b"keyferry audit request digest"


class JosePersonKeys:
    """Makes, wraps and uses the key of each person."""

    def __init__(self, secret: Keyring) -> None:
        self._lookup = secret.derive(_LOOKUP_PURPOSE)
        self._wrap = secret.derive(_WRAP_PURPOSE)

    def lookups(self, actor_type: ActorType, actor_id: str) -> Sequence[bytes]:
        """Return the digests under which a person may be stored: the active secret's first, then the retained ones'."""
        name = f"{actor_type.value}\x1f{actor_id}".encode()
        versions = [
            self._lookup.active,
            *(version for version in self._lookup.versions if version != self._lookup.active),
        ]
        return [hmac.digest(self._lookup.versions[version].expose(), name, hashlib.sha256) for version in versions]

    def new_person(self) -> Person:
        """Make up a pseudonym and a key."""
        pseudonym, version = f"p-{uuid.uuid4()}", self._wrap.active
        nonce = os.urandom(NONCE_BYTES)
        wrapping = AESGCM(self._wrap.versions[version].expose())
        wrapped = wrapping.encrypt(nonce, os.urandom(KEY_BYTES), _wrap_aad(version, pseudonym))
        return Person(pseudonym=pseudonym, secret_version=version, wrapped_key=nonce + wrapped)

    def close_personal(self, person: Person, actor: Actor) -> str:
        """Encrypt what is personal about an actor under the person's key."""
        content = canonical_json(
            {
                "email": actor.email,
                "id": actor.id,
                "ip_address": actor.ip_address,
                "user_agent": actor.user_agent,
            }
        )
        header = {"alg": ALGORITHM, "enc": ENCRYPTION, "kid": person.pseudonym}
        key = OctKey.import_key(self._unwrap(person).expose())
        return jwe.encrypt_compact(header, content.encode(), key, algorithms=[ALGORITHM, ENCRYPTION])

    def open_personal(self, person: Person, personal: str, actor_type: ActorType) -> Actor:
        """Decrypt it. Raises PersonalUnreadable when it was changed, moved to another person, or its key is gone."""
        key = OctKey.import_key(self._unwrap(person).expose())
        try:
            opened = jwe.decrypt_compact(personal, key, algorithms=[ALGORITHM, ENCRYPTION])
        except (JoseError, InvalidTag, ValueError):
            raise PersonalUnreadable("the personal part of the entry does not open") from None
        if opened.protected.get("kid") != person.pseudonym or opened.plaintext is None:
            raise PersonalUnreadable("the personal part belongs to another person")
        return Actor(type=actor_type, **json.loads(opened.plaintext))

    def request_digest(self, person: Person, told: bytes) -> bytes:
        """Return a digest of a message about a person that proves nothing once the person's key is gone."""
        key = hmac.digest(self._unwrap(person).expose(), _DIGEST_PURPOSE, hashlib.sha256)
        return hmac.digest(key, told, hashlib.sha256)

    def _unwrap(self, person: Person) -> SecretBytes:
        secret = self._wrap.versions.get(person.secret_version)
        if secret is None:
            raise PersonalUnreadable(f"version {person.secret_version} of the secret is not in the keyring")
        nonce, wrapped = person.wrapped_key[:NONCE_BYTES], person.wrapped_key[NONCE_BYTES:]
        try:
            key = AESGCM(secret.expose()).decrypt(nonce, wrapped, _wrap_aad(person.secret_version, person.pseudonym))
        except (InvalidTag, ValueError):
            raise PersonalUnreadable("the person's key does not unwrap") from None
        return SecretBytes(key)


def _wrap_aad(version: str, pseudonym: str) -> bytes:
    return f"{_WRAP_PURPOSE}\x1f{version}\x1f{pseudonym}".encode()
