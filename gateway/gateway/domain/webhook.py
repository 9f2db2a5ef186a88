"""The supplier's webhooks: is the proof good, what does the body say, and which event is it.

A webhook is a hint. Nothing in it is believed; it only makes us ask the supplier earlier. So all that matters here is
that strangers cannot make us ask, and that a repeat has the same event id.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ORDER_STATUS = "order.status"
PRODUCT_UPDATE = "product.update"

# Far from now, a signature is a recording (DESIGN section 4).
SIGNATURE_TOLERANCE_SECONDS = 300

_SIGNATURE = re.compile(r"t=(?P<time>[0-9]{1,12}),v1=(?P<mac>[0-9a-f]{64})")
# Ids, statuses and times are short printable words; anything else would only travel to be refused further in.
_WORD = re.compile(r"[\x21-\x7e]{1,128}")
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    ORDER_STATUS: ("orderId", "status", "updatedAt"),
    PRODUCT_UPDATE: ("kinguinId", "productId", "updatedAt"),
}


@dataclass(frozen=True, slots=True)
class WebhookHint:
    """What an accepted webhook says, in our words."""

    event_name: str
    supplier_order_id: str = ""
    external_id: str = ""
    status: str = ""
    product_id: str = ""
    updated_at: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what makes this news the same news: the supplier sends no event id of its own, and repeats itself."""
        return (self.event_name, self.supplier_order_id, self.product_id, self.status, self.updated_at)


class MalformedWebhook(ValueError):
    """The body of a known event cannot be understood; `field` names the member at fault."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.field = field
        self.description = description


def secret_matches(presented: str | None, secrets: Sequence[bytes]) -> bool:
    """Return whether the presented secret is one of ours.

    Takes the same time for every input: digests of equal length are compared, and every secret is compared to the end.
    """
    given = hashlib.sha256((presented or "").encode("utf-8", "surrogateescape")).digest()
    matches = False
    for secret in secrets:
        matches |= hmac.compare_digest(given, hashlib.sha256(secret).digest())
    return matches and bool(presented)


def signature_matches(header: str | None, body: bytes, secrets: Sequence[bytes], now: float) -> bool:
    """Return whether `t=<unix seconds>,v1=<hex HMAC-SHA256 of t + "." + body>` was made with one of ours, lately."""
    match = _SIGNATURE.fullmatch(header or "")
    if match is None or abs(now - int(match["time"])) > SIGNATURE_TOLERANCE_SECONDS:
        return False
    signed = match["time"].encode() + b"." + body
    matches = False
    for secret in secrets:
        wanted = hmac.new(secret, signed, hashlib.sha256).hexdigest()
        matches |= hmac.compare_digest(wanted, match["mac"])
    return matches


def read_webhook(event_name: str | None, body: bytes) -> WebhookHint | None:
    """Read an accepted webhook; None for one that tells us nothing: an event we do not know, or the dashboard's probe.

    Raises MalformedWebhook when a known event's body is not what the supplier documents.
    """
    required = _REQUIRED.get(event_name or "")
    if event_name is None or required is None or not body.strip():
        return None
    content = _json_object(body)
    if not any(name in content for name in required):
        return None
    for name in required:
        if name not in content:
            raise MalformedWebhook(name, "is missing")
    if event_name == ORDER_STATUS:
        return _order_status(content)
    return _product_update(content)


def _order_status(content: Mapping[str, object]) -> WebhookHint:
    order_id, status, updated_at = (_word(content, name) for name in ("orderId", "status", "updatedAt"))
    return WebhookHint(
        event_name=ORDER_STATUS,
        supplier_order_id=order_id,
        external_id=_word(content, "orderExternalId") if content.get("orderExternalId") else "",
        status=status,
        updated_at=updated_at,
    )


def _product_update(content: Mapping[str, object]) -> WebhookHint:
    product_id, updated_at = _word(content, "productId"), _word(content, "updatedAt")
    return WebhookHint(
        event_name=PRODUCT_UPDATE,
        product_id=product_id,
        updated_at=updated_at,
    )


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedWebhook("body", "is not JSON") from None
    if not isinstance(content, dict):
        raise MalformedWebhook("body", "must be a JSON object")
    return content


def _word(content: Mapping[str, object], name: str) -> str:
    value = content[name]
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise MalformedWebhook(name, "must be 1 to 128 printable characters without spaces")
    return value
