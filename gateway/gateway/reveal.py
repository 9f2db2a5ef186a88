"""Opens one key in this process for one answer: for people whose browser runs no script.

The one-time private key and the plaintext live only in these calls; nothing of them is kept, logged or cached.
"""

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from chassis.errors import KeyferryError
from chassis.jwe import jwe_registry
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gateway.domain.order import Customer, KeyRequest
from gateway.ports import Fulfillments

# The most that vault seals.
MOST_KEY_BYTES = 1024 * 1024
_REGISTRY = jwe_registry("ECDH-ES+A256KW", "A256GCM", most_plaintext_bytes=MOST_KEY_BYTES)
_PICTURES: Mapping[str, str] = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}


class CannotOpen(KeyferryError):
    """What vault sent does not open, or is of a kind that no page can show."""

    reason = "KEY_UNREADABLE"


@dataclass(frozen=True, slots=True, repr=False)
class OpenedKey:
    """A key on its way into one page, as text or as a picture's data URL; or why it could not be opened."""

    key_id: str
    text: str = ""
    picture_url: str = ""
    file_name: str = ""
    failure: str = ""


async def reveal(fulfillments: Fulfillments, order_id: str, key_id: str, customer: Customer) -> OpenedKey:
    """Ask for the key, open it, and return it in a form that a page can show. Raises KeyferryError."""
    recipient = ECKey.generate_key("P-256")
    public = json.dumps({name: recipient.as_dict(private=False)[name] for name in ("crv", "kty", "x", "y")}).encode()
    answer = await fulfillments.reveal_key(KeyRequest(str(uuid.uuid4()), order_id, key_id, customer, public))
    try:
        opened = jwe.decrypt_compact(answer, recipient, registry=_REGISTRY)
    except (JoseError, ValueError):
        raise CannotOpen("the key could not be opened") from None
    content_type, plaintext = opened.headers().get("cty"), opened.plaintext or b""
    if content_type == "text/plain":
        return OpenedKey(key_id, text=plaintext.decode("utf-8", "replace"))
    extension = _PICTURES.get(str(content_type))
    if extension is None:
        raise CannotOpen("the key is neither text nor a picture")
    picture_url = f"data:{content_type};base64,{base64.b64encode(plaintext).decode()}"
    return OpenedKey(key_id, picture_url=picture_url, file_name=f"game-key-{key_id}.{extension}")
