"""The JSON of the customer API, as OpenAPI shows it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from gateway.domain.order import Amount, DownloadLink, Key, Line, Order, OrderPage, State
from gateway.domain.progress import Progress, tell, tell_line, tell_pending
from gateway.domain.recipient import IGNORED_MEMBERS, BadRecipient, canonical_recipient

# What ids look like everywhere behind the edge; nothing else travels further.
IDENTIFIER = r"^[A-Za-z0-9._-]+$"
PAGE_CURSOR = r"^[\x21-\x7e]*$"


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class MoneyModel(_Model):
    """An amount of money."""

    currency_code: str = Field(description="ISO 4217 code.", examples=["EUR"])
    minor_units: int = Field(description="Amount in the currency's minor unit, cents for EUR.", examples=[1999])


class KeyModel(_Model):
    """A key that can be opened now. Everything but the key."""

    key_id: str
    content_type: str = Field(description="What the key is once opened.", examples=["text/plain", "image/png"])
    ready_time: datetime | None
    open_time: datetime | None = Field(description="When its owner first opened it.")


class LineModel(_Model):
    """One product of an order."""

    item_id: str
    product_id: str
    product_name: str
    quantity: int
    state: State
    reason: str = Field(description="Why a person is needed, or why the order waits; empty otherwise.")
    keys: list[KeyModel]
    note: str = Field(description="A short note for people.", examples=["1 of 2 keys here"])
    pending: str = Field(description="What is said about keys that are not here; empty when none is missing.")


class StepModel(_Model):
    """One of the steps paid, bought, sealed and ready."""

    name: str
    label: str
    state: Literal["done", "current", "waiting", "attention", "stopped"]
    told: str = Field(description="The state in words.")


class ProgressModel(_Model):
    """Where the order is, in plain words."""

    label: str
    tone: Literal["active", "ready", "attention", "quiet"]
    headline: str
    sentence: str
    steps: list[StepModel]
    final: bool = Field(description="True once nothing can change any more.")


class OrderModel(_Model):
    """An order of the customer."""

    order_id: str
    state: State
    reason: str = Field(description="Why a person is needed, or why the order waits; empty otherwise.")
    total: MoneyModel
    paid: MoneyModel | None
    lines: list[LineModel]
    create_time: datetime
    update_time: datetime
    pay_time: datetime | None
    progress: ProgressModel

    @property
    def title(self) -> str:
        """Return the order's products in a few words."""
        names = list(dict.fromkeys(line.product_name for line in self.lines))
        if not names:
            return self.order_id
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    @property
    def page_url(self) -> str:
        """Return the path of the order's page."""
        return f"/orders/{quote(self.order_id, safe='')}"

    @property
    def api_url(self) -> str:
        """Return the path of the order in the API."""
        return f"/v1/orders/{quote(self.order_id, safe='')}"


class OrderListModel(_Model):
    """Some orders, newest first."""

    orders: list[OrderModel]
    next_page_token: str = Field(description="Give it as page_token to get the next page; empty on the last one.")


_COORDINATE: Mapping[str, Any] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]{43}$",
    "description": "32 bytes in base64url; x and y are a point of the curve.",
}
# What `canonical_recipient` takes.
_PUBLIC_KEY: dict[str, Any] = {
    "required": ["kty", "crv", "x", "y"],
    "properties": {
        "kty": {"type": "string", "enum": ["EC"]},
        "crv": {"type": "string", "enum": ["P-256"]},
        "x": _COORDINATE,
        "y": _COORDINATE,
        **{name: {"description": "Ignored."} for name in sorted(IGNORED_MEMBERS)},
    },
    "additionalProperties": False,
}


class RecipientRequest(BaseModel):
    """Names the one-time public key that the answer is encrypted to."""

    model_config = ConfigDict(extra="forbid")

    recipient_jwk: dict[str, Any] = Field(
        description="Public P-256 key (RFC 7517) made for this request alone. Never send its private part.",
        json_schema_extra=_PUBLIC_KEY,
        examples=[
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }
        ],
    )

    def recipient(self) -> bytes:
        """Return the key in its canonical form. Raises BadRecipient."""
        try:
            return canonical_recipient(self.recipient_jwk)
        except BadRecipient as fault:
            field = "recipient_jwk." + fault.field if fault.field else "recipient_jwk"
            raise BadRecipient(field, fault.description) from None


class DownloadLinkModel(_Model):
    """A link to the sealed key, and what opens it."""

    url: str = Field(description="Presigned URL of the ciphertext, a compact JWE. A bearer secret until it expires.")
    expire_time: datetime
    content_key_jwe: str = Field(description="The content key as a JWE, ECDH-ES+A256KW, to recipient_jwk.")
    object_sha256: str = Field(description="SHA-256 of the ciphertext, 64 hex digits. Check it before opening.")


class RevealedKeyModel(_Model):
    """An opened key for the holder of the one-time private key."""

    key_jwe: str = Field(
        description="The key as a JWE, ECDH-ES+A256KW, to recipient_jwk; cty is the key's content type."
    )


class FieldModel(_Model):
    """A fault in one field."""

    field: str
    description: str


class ProblemModel(_Model):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:keyferry:reason:RATE_LIMITED"])
    title: str
    status: int
    detail: str
    reason: str = Field(description="Stable name of the error, as in docs/errors.md.", examples=["RATE_LIMITED"])
    request_id: str = Field(description="Quote it when you ask for help.")
    fields: list[FieldModel] | None = None
    metadata: dict[str, str] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these error statuses, and of those that every route can answer with."""
    schema = {"$ref": "#/components/schemas/ProblemModel"}
    return {
        status: {"description": _MEANINGS[status], "content": {"application/problem+json": {"schema": schema}}}
        for status in sorted({*statuses, 500, 503})
    }


_MEANINGS: Mapping[int, str] = {
    400: "A field is missing or wrong; fields names it.",
    401: "No token or session, or one that does not hold.",
    403: "A session without its CSRF proof.",
    404: "No such order or key, or one of somebody else.",
    408: "The body did not arrive in time.",
    409: "Not possible now, or the idempotency key was used for another request.",
    413: "The body is too large.",
    429: "Too many requests; Retry-After says when to come back.",
    500: "A fault of ours; it was recorded.",
    503: "Something behind the edge is down; nothing was done. Retry-After says when to come back.",
    504: "Something behind the edge is slow. Retry-After says when to come back.",
}


def order_model(order: Order) -> OrderModel:
    """Render an order with what is told about it."""
    return OrderModel(
        order_id=order.order_id,
        state=order.state,
        reason=order.reason,
        total=_money_model(order.total),
        paid=_money_model(order.paid) if order.paid else None,
        lines=[_line_model(line) for line in order.lines],
        create_time=order.create_time,
        update_time=order.update_time,
        pay_time=order.pay_time,
        progress=_progress_model(tell(order)),
    )


def order_list_model(page: OrderPage) -> OrderListModel:
    """Render a page of orders."""
    return OrderListModel(orders=[order_model(order) for order in page.orders], next_page_token=page.next_page_token)


def download_link_model(link: DownloadLink) -> DownloadLinkModel:
    """Render a download link."""
    return DownloadLinkModel(
        url=link.url,
        expire_time=link.expire_time,
        content_key_jwe=link.content_key_jwe,
        object_sha256=link.object_sha256.hex(),
    )


def _money_model(amount: Amount) -> MoneyModel:
    return MoneyModel(currency_code=amount.currency_code, minor_units=amount.minor_units)


def _line_model(line: Line) -> LineModel:
    return LineModel(
        item_id=line.item_id,
        product_id=line.product_id,
        product_name=line.product_name,
        quantity=line.quantity,
        state=line.state,
        reason=line.reason,
        keys=[_key_model(key) for key in line.keys],
        note=tell_line(line),
        pending=tell_pending(line),
    )


def _key_model(key: Key) -> KeyModel:
    return KeyModel(
        key_id=key.key_id, content_type=key.content_type, ready_time=key.ready_time, open_time=key.open_time
    )


def _progress_model(progress: Progress) -> ProgressModel:
    return ProgressModel.model_validate(progress)
