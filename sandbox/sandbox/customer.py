"""What a customer's own program does to open a key: the edge's HTTP API, a one-time key pair, and any JOSE library."""

import hashlib
import uuid
from dataclasses import dataclass

import httpx
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import ECKey, OctKey


class _Registry(JWERegistry):
    # The library's own limit of 64 KiB is below what a picture takes; a key has at most 1 MiB before base64url.
    max_ciphertext_length = 1024 * 1024 * 4 // 3 + 4


_REGISTRY = _Registry(algorithms=["ECDH-ES+A256KW", "dir", "A256GCM"])
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
