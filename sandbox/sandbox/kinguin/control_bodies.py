"""What may be said on the control port: the body of each call, checked field by field."""

import base64
import binascii
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sandbox.kinguin.catalogue import TEXT
from sandbox.kinguin.deliveries import picture_serial
from sandbox.kinguin.pictures import PICTURE_TYPES

_Money = Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
# The account's balance is a float, and may be 12.449999 (K65).
_Float = Annotated[Decimal, Field(max_digits=18, decimal_places=6)]
_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Plant(_Body):
    """A key for the head of a product's stock. A picture comes as base64, or is drawn from `shown`."""

    product_id: str
    type: str = TEXT
    serial: str | None = Field(default=None, max_length=2_000_000)
    shown: str | None = Field(default=None, max_length=40)


class Balance(_Body):
    """`balance` sets it, `add` moves it (negative takes away)."""

    balance: _Float | None = None
    add: _Float | None = None


class Stock(_Body):
    """New price or stock of an offer; what is absent stays."""

    offer_id: str
    price: _Money | None = None
    text: _Count | None = None
    image: _Count | None = None
    promised: _Count | None = None


class Release(_Body):
    """Deliver now what is held, promised or awaits its release date: of one order, or of all."""

    order_id: str | None = None


class Claim(_Body):
    """Mark keys of an order as claimed, so that they cannot be returned."""

    order_id: str


class Cancel(_Body):
    """Cancel what is not delivered of an order."""

    order_id: str


class Refund(_Body):
    """Take delivered keys back without being asked: the first so many of them, or all."""

    order_id: str
    keys: int | None = Field(default=None, ge=1, le=1000)


class ReleaseDate(_Body):
    """When a pre-order is released: a date, or so many seconds from now."""

    product_id: str
    release_date: str | None = Field(default=None, max_length=40)
    seconds: float | None = Field(default=None, ge=0, le=1_000_000_000)


class Flood(_Body):
    """So many `product.update` for products that nobody sells here."""

    count: int = Field(ge=1, le=1_000_000)
    per_second: float = Field(default=200, gt=0, le=10_000)


def planted(body: Plant) -> tuple[str, str]:
    """Return a planted key's serial and what it shows. Raises ValueError."""
    if body.type == TEXT:
        if not body.serial:
            raise ValueError("a text key needs a serial")
        return body.serial, body.serial
    if body.type not in PICTURE_TYPES:
        raise ValueError("unknown type")
    if body.serial is None:
        if not body.shown:
            raise ValueError("a picture key needs a serial or what is shown")
        return picture_serial(body.shown, body.type), body.shown
    try:
        base64.b64decode(body.serial, validate=True)
    except binascii.Error:
        raise ValueError("the serial of a picture key is base64") from None
    return body.serial, body.shown or ""
