"""What a customer's own program does to open a key: the edge's HTTP API, a one-time key pair, and any JOSE library."""

import hashlib
import uuid
from dataclasses import dataclass

import httpx
from chassis.jwe import jwe_registry
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

# The most that vault seals.
MOST_KEY_BYTES = 1024 * 1024
_REGISTRY = jwe_registry("ECDH-ES+A256KW", "dir", "A256GCM", most_plaintext_bytes=MOST_KEY_BYTES)
_PUBLIC_PARTS = ("kty", "crv", "x", "y")
_DIGEST = hashlib.sha256


class Refused(Exception):
    """The edge said no. The message is the status and the reason."""


class NotGenuine(Exception):
    """What was fetched is not what the edge promised."""


@dataclass(frozen=True, slots=True, repr=False)
class OpenedKey:
    """A game key on its owner's side."""

    plaintext: bytes
    content_type: str
    ciphertext: bytes


class CustomerClient:
    """One customer, with an access token."""

    def __init__(self, http: httpx.AsyncClient, *, edge: str, token: str) -> None:
        self._http = http
        self._edge = edge
        self._headers = {"authorization": f"Bearer {token}"}

    async def open_key(self, order_id: str, key_id: str) -> OpenedKey:
        """Ask for a link, fetch the ciphertext, open it here. Raises Refused or NotGenuine."""
        recipient = ECKey.generate_key("P-256", private=True)
        public = {name: value for name, value in recipient.as_dict(private=False).items() if name in _PUBLIC_PARTS}
        answer = await self._http.post(
            f"{self._edge}/v1/orders/{order_id}/keys/{key_id}/download-link",
            json={"recipient_jwk": public},
            headers={**self._headers, "idempotency-key": str(uuid.uuid4())},
        )
        if answer.status_code != httpx.codes.OK:
            raise Refused(_refusal(answer))
        link = answer.json()
        fetched = await self._http.get(link["url"])
        ciphertext = fetched.content
        if fetched.status_code != httpx.codes.OK or _DIGEST(ciphertext).hexdigest() != link["object_sha256"]:
            raise NotGenuine("the fetched ciphertext is not the promised one")
        try:
            content_key = jwe.decrypt_compact(link["content_key_jwe"], recipient, registry=_REGISTRY).plaintext
            sealed = jwe.decrypt_compact(ciphertext.decode(), OctKey.import_key(content_key or b""), registry=_REGISTRY)
        except (JoseError, ValueError) as error:
            raise NotGenuine(f"what was fetched does not open: {type(error).__name__}") from error
        if sealed.protected.get("kid") != key_id:
            raise NotGenuine("the opened key is another one")
        return OpenedKey(sealed.plaintext or b"", str(sealed.protected.get("cty", "")), ciphertext)

    async def read_order(self, order_id: str) -> dict[str, object]:
        """Return the order as its owner sees it. Raises Refused."""
        answer = await self._http.get(f"{self._edge}/v1/orders/{order_id}", headers=self._headers)
        if answer.status_code != httpx.codes.OK:
            raise Refused(_refusal(answer))
        return dict(answer.json())


def _refusal(answer: httpx.Response) -> str:
    try:
        reason = answer.json().get("reason", "")
    except ValueError:
        reason = ""
    return f"{answer.status_code} {reason}".strip()
