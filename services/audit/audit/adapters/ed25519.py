"""The log's signing keys: Ed25519, one for each version of `KEYFERRY_CHECKPOINT_SECRET`, whose 32 bytes are the seed.

Every version signs, so that who still verifies with the key before goes on doing so until it is retired. Of a retired
key the public half is kept: what it has signed stays proven.
"""

from collections.abc import Sequence

from chassis.keyring import Keyring
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.domain.note import NoteSignature, key_id, read_note, read_verifier_key, verifier_key, write_note
from audit.ports import NoteUnproven


class Ed25519Notary:
    """Signs notes under the log's origin as the key's name, and opens those that it has signed."""

    def __init__(self, origin: str, secret: Keyring, retired: Sequence[str] = ()) -> None:
        """`retired` are verifier keys that sign no more."""
        versions = [secret.active, *(version for version in secret.versions if version != secret.active)]
        keys = [Ed25519PrivateKey.from_private_bytes(secret.versions[version].expose()) for version in versions]
        self._origin = origin
        # The object does not print its key; the seed itself is not kept.
        self._keys = {key_id(origin, key.public_key().public_bytes_raw()): key for key in keys}
        known = [key.public_key() for key in keys]
        known += [Ed25519PublicKey.from_public_bytes(read_verifier_key(text)[1]) for text in retired]
        self._known = {key_id(origin, key.public_bytes_raw()): key for key in known}

    @property
    def verifier_keys(self) -> Sequence[str]:
        """Return the public keys as C2SP verifier keys, the one of the active version first."""
        return [verifier_key(self._origin, key.public_key().public_bytes_raw()) for key in self._keys.values()]

    def sign(self, text: str) -> str:
        """Return the text as a signed note."""
        content = text.encode()
        return write_note(
            text, [NoteSignature(self._origin, name, key.sign(content)) for name, key in self._keys.items()]
        )

    def open(self, note: str) -> str:
        """Return the text of a note that one of our keys has signed. Raises NoteUnproven."""
        try:
            text, signatures = read_note(note)
        except ValueError:
            raise NoteUnproven("it is no signed note") from None
        ours = [each for each in signatures if each.key_name == self._origin and each.key_id in self._known]
        if not ours:
            raise NoteUnproven("no key of ours has signed it")
        for each in ours:
            try:
                self._known[each.key_id].verify(each.signature, text.encode())
            except InvalidSignature:
                raise NoteUnproven("a signature is wrong") from None
        return text
