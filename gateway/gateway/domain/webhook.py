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
from enum import StrEnum

ORDER_STATUS = "order.status"
# Older stores send this one instead; it names no status, because its name does.
ORDER_COMPLETE = "order.complete"
PRODUCT_UPDATE = "product.update"

# Far from now, a signature is a recording (DESIGN section 4).
SIGNATURE_TOLERANCE_SECONDS = 300

_SIGNATURE = re.compile(r"t=(?P<time>[0-9]{1,12}),v1=(?P<mac>[0-9a-f]{64})")
# Ids and statuses are short printable words; anything else would only travel to be refused further in.
_WORD = re.compile(r"[\x21-\x7e]{1,128}")
# Times are passed on as they were written (K59), and some of the supplier's formats have a space in them (K12).
_MOMENT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?")
_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class _Form:
    """The members of an event's body that we know of."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_FORMS: Mapping[str, _Form] = {
    ORDER_STATUS: _Form(("orderId", "status", "updatedAt"), ("orderExternalId",)),
    ORDER_COMPLETE: _Form(("orderId", "updatedAt"), ("orderExternalId", "status")),
    PRODUCT_UPDATE: _Form(("kinguinId", "productId", "updatedAt"), ("qty", "textQty", "cheapestOfferId")),
}


class NoNews(StrEnum):
    """Why a webhook with a good proof tells us nothing."""

    #: What the dashboard's TEST URL button sends: nobody documents its body, and it must get a 2xx (K60).
    PROBE = "probe"
    #: An event that we have no use for.
    UNKNOWN_EVENT = "ignored"


@dataclass(frozen=True, slots=True)
class WebhookHint:
    """What an accepted webhook says, in our words. `body_sha256` is the digest of the body as it came."""

    event_name: str
    supplier_order_id: str = ""
    external_id: str = ""
    status: str = ""
    product_id: str = ""
    updated_at: str = ""
    body_sha256: bytes = b""

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


def read_webhook(event_name: str | None, body: bytes) -> WebhookHint | NoNews:
    """Read an accepted webhook.

    A probe is what names no event, or carries none of the event's members. Raises MalformedWebhook when the body of a
    known event is not what the supplier documents.
    """
    if not event_name:
        return NoNews.PROBE
    form = _FORMS.get(event_name)
    if form is None:
        return NoNews.UNKNOWN_EVENT
    if not body.strip():
        return NoNews.PROBE
    content = _json_object(body)
    if not any(name in content for name in (*form.required, *form.optional)):
        return NoNews.PROBE
    for name in form.required:
        if name not in content:
            raise MalformedWebhook(name, "is missing")
    digest = hashlib.sha256(body).digest()
    return _product_update(content, digest) if event_name == PRODUCT_UPDATE else _order(event_name, content, digest)


def _order(event_name: str, content: Mapping[str, object], body_sha256: bytes) -> WebhookHint:
    told = event_name == ORDER_STATUS or content.get("status") not in (None, "")
    return WebhookHint(
        event_name=event_name,
        supplier_order_id=_word(content, "orderId"),
        external_id=_reference(content),
        status=_word(content, "status") if told else _COMPLETED,
        updated_at=_moment(content),
        body_sha256=body_sha256,
    )


def _product_update(content: Mapping[str, object], body_sha256: bytes) -> WebhookHint:
    return WebhookHint(
        event_name=PRODUCT_UPDATE,
        product_id=_word(content, "productId"),
        updated_at=_moment(content),
        body_sha256=body_sha256,
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


def _reference(content: Mapping[str, object]) -> str:
    """Return our reference, or nothing where it is no word: other buyers on the same account name orders as they like.

    Refusing theirs would count as a failure of this endpoint, and many of those have it switched off (K58).
    """
    value = content.get("orderExternalId")
    if not isinstance(value, str | None):
        raise MalformedWebhook("orderExternalId", "must be a string")
    return value if value and _WORD.fullmatch(value) else ""


def _moment(content: Mapping[str, object]) -> str:
    value = content["updatedAt"]
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise MalformedWebhook("updatedAt", "must be a time, 1 to 64 printable characters")
    return value
