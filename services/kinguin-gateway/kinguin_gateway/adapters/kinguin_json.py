"""The supplier's JSON, read tolerantly where its documentation and its examples disagree, strictly everywhere else.

Money comes as JSON numbers and never meets a binary float (K13). What is wrong is told by the field's name, never by
its value: a value may be a key.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Annotated, Any, NoReturn, TypeVar

from chassis.secret import SecretBytes
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from kinguin_gateway.domain.purchase import (
    Intent,
    Offer,
    OrderKey,
    OrderLine,
    Problem,
    Product,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
    Tier,
)
from kinguin_gateway.ports.supplier import SuppliedKey

TEXT = "text/plain"
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif"})
# Levels of a wholesale offer, and the number of keys from which each holds (K31).
TIER_QUANTITIES = {1: 10, 2: 50, 3: 100, 4: 500}
# Enough for a sentence and a trace id; an error page of a proxy is neither.
_MOST_PROBLEM_CHARACTERS = 500
_UNAUTHORIZED = 401


class UnreadableAnswer(Exception):
    """The answer is not what the contract says. The message names a field and holds no value."""


def _lenient_decimal(value: object) -> Decimal | None:
    """Read an amount that is documented as a string and shown as a number (`paymentPrice`); else it is unknown."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def _list_or_nothing(value: object) -> object:
    return [] if value is None else value


Amount = Annotated[Decimal | None, BeforeValidator(_lenient_decimal)]
T = TypeVar("T")
_Many = Annotated[list[T], BeforeValidator(_list_or_nothing)]


class _Shape(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=True, frozen=True
    )


class _KeyState(_Shape):
    id: str
    status: str


class _Line(_Shape):
    product_id: str | None = None
    offer_id: str | None = None
    qty: int | None = None
    price: Amount = None
    name: str | None = None
    is_preorder: bool | None = None
    release_date: str | None = None
    keys: list[_KeyState] | None = None


class _Order(_Shape):
    order_id: str = Field(min_length=1)
    order_external_id: str | None = None
    status: str
    total_price: Amount = None
    payment_price: Amount = None
    total_qty: int | None = None
    is_preorder: bool | None = None
    preorder_release_date: str | None = None
    created_at: str | None = None
    products: _Many[_Line] = Field(default_factory=list)


class _OrderPage(_Shape):
    results: list[_Order]
    item_count: int = Field(alias="item_count")


class _Key(_Shape):
    id: str = Field(min_length=1)
    serial: SecretStr
    type: str
    product_id: str | None = None


class _Tier(_Shape):
    level: int
    price: Amount = None


class _Wholesale(_Shape):
    enabled: bool | None = None
    tiers: _Many[_Tier] = Field(default_factory=list)


class _Offer(_Shape):
    offer_id: str | None = None
    price: Amount = None
    qty: int | None = None
    text_qty: int | None = None
    available_qty: int | None = None
    available_text_qty: int | None = None
    merchant_name: str | None = None
    wholesale: _Wholesale | None = None


class _Product(_Shape):
    product_id: str
    name: str
    price: Amount = None
    qty: int | None = None
    is_preorder: bool | None = None
    release_date: str | None = None
    platform: str | None = None
    regional_limitations: str | None = None
    country_limitation: _Many[str] = Field(default_factory=list)
    activation_details: str | None = None
    offers: _Many[_Offer] = Field(default_factory=list)
    updated_at: str | None = None


class _ProductPage(_Shape):
    results: list[_Product]


class _Balance(_Shape):
    balance: Amount = None


_KEYS = TypeAdapter(list[_Key])
_KEY_STATES = TypeAdapter(list[_KeyState])
M = TypeVar("M", bound=_Shape)


def parse_json(body: bytes) -> Any:
    """Parse a body, whatever its content type says; numbers with a fraction become Decimal."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnreadableAnswer("the answer is not JSON") from None


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not a number")


def _read(shape: type[M], content: object) -> M:
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> UnreadableAnswer:
    fault = error.errors(include_input=False, include_context=False, include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or "the whole"
    return UnreadableAnswer(f"{field}: {fault['type']}")


def order_from_json(content: object) -> SupplierOrder:
    """Read an order. Raises UnreadableAnswer."""
    return _order(_read(_Order, content))


def order_page_from_json(content: object) -> tuple[Sequence[SupplierOrder], int]:
    """Read one page of a search, and how many the supplier counts in all."""
    page = _read(_OrderPage, content)
    return [_order(order) for order in page.results], page.item_count


def _order(order: _Order) -> SupplierOrder:
    return SupplierOrder(
        supplier_order_id=order.order_id,
        external_id=order.order_external_id or "",
        state=_order_state(order.status),
        lines=[_line(line) for line in order.products],
        total_quantity=order.total_qty,
        charged_cents=cents_up(order.payment_price),
        create_time=_moment(order.created_at),
        total_cents=cents_up(order.total_price),
        preorder=bool(order.is_preorder) or any(line.is_preorder for line in order.products),
        release_time=_release(order),
    )


def _release(order: _Order) -> datetime | None:
    """Return when a pre-order is released: told of the order, or of its lines (K39)."""
    told = (order.preorder_release_date, *(line.release_date for line in order.products))
    return next((moment for text in told if (moment := _moment(text)) is not None), None)


def _order_state(status: str) -> SupplierOrderState:
    # A status we do not know (stores have seen "on hold") promises nothing yet: keys may be outstanding.
    known = {state.value: state for state in SupplierOrderState}
    return known.get(status.lower(), SupplierOrderState.PROCESSING)


def _line(line: _Line) -> OrderLine:
    keys = [_key_state(key) for key in line.keys or ()]
    delivered = None if line.keys is None else sum(key.state is SupplierKeyState.DELIVERED for key in keys)
    price = cents_up(line.price)
    return OrderLine(line.product_id, line.offer_id, line.qty, line.name or "", delivered, keys, price)


def _key_state(key: _KeyState) -> OrderKey:
    known = {state.value: state for state in SupplierKeyState}
    return OrderKey(key.id, known.get(key.status.upper()))


def key_states_from_json(content: object) -> Sequence[OrderKey]:
    """Read the states of keys under return. Raises UnreadableAnswer."""
    try:
        return [_key_state(key) for key in _KEY_STATES.validate_python(content)]
    except ValidationError as error:
        raise _unreadable(error) from None


def keys_from_json(content: object) -> Sequence[SuppliedKey]:
    """Read one page of keys; one that is no key keeps its place, without a value. Raises UnreadableAnswer."""
    try:
        keys = _KEYS.validate_python(content)
    except ValidationError as error:
        raise _unreadable(error) from None
    return [_key(key) for key in keys]


def _key(key: _Key) -> SuppliedKey:
    content_type = key.type.partition(";")[0].strip().lower()
    return SuppliedKey(key.id, key.product_id, content_type, _key_value(content_type, key.serial.get_secret_value()))


def _key_value(content_type: str, serial: str) -> SecretBytes | None:
    if not serial:
        return None
    if content_type == TEXT:
        return SecretBytes(serial.encode())
    if content_type not in PICTURES:
        return None
    encoded = serial.partition(",")[2] if serial.startswith("data:") else serial
    try:
        picture = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return SecretBytes(picture) if picture else None


def product_from_json(content: object) -> Product:
    """Read a product. Raises UnreadableAnswer."""
    return _product(_read(_Product, content))


def products_from_json(content: object) -> Sequence[Product]:
    """Read one page of products. Raises UnreadableAnswer."""
    return [_product(product) for product in _read(_ProductPage, content).results]


def _product(product: _Product) -> Product:
    return Product(
        product_id=product.product_id,
        name=product.name,
        price_cents=cents_up(product.price),
        available=product.qty or 0,
        preorder=bool(product.is_preorder),
        excluded_countries=[code.upper() for code in product.country_limitation],
        activation_details=product.activation_details or "",
        offers=[_offer(offer) for offer in product.offers],
        platform=product.platform or "",
        region=product.regional_limitations or "",
        release_time=_moment(product.release_date),
        update_time=_moment(product.updated_at),
    )


def _offer(offer: _Offer) -> Offer:
    # `qty` only promises (K14); it counts where the supplier does not say what is there.
    available = offer.qty if offer.available_qty is None else offer.available_qty
    text = offer.text_qty if offer.available_text_qty is None else offer.available_text_qty
    return Offer(
        cents_up(offer.price),
        available or 0,
        offer_id=offer.offer_id or "",
        merchant_name=offer.merchant_name or "",
        available_text=text or 0,
        tiers=_tiers(offer.wholesale),
    )


def _tiers(wholesale: _Wholesale | None) -> Sequence[Tier]:
    if wholesale is None or not wholesale.enabled:
        return ()
    told = [
        Tier(TIER_QUANTITIES[tier.level], cents)
        for tier in wholesale.tiers
        if tier.level in TIER_QUANTITIES and (cents := cents_up(tier.price)) is not None
    ]
    return sorted(told, key=lambda tier: tier.min_quantity)


def balance_from_json(content: object) -> int | None:
    """Read the balance in cents, rounded down: what is not there cannot be spent."""
    balance = _read(_Balance, content).balance
    return None if balance is None else int((balance * 100).to_integral_value(rounding=ROUND_FLOOR))


def problem_from_json(status: int, content: object) -> Problem:
    """Read a failure; its body varies (K3). Raises UnreadableAnswer when it is none of the supplier's."""
    if not isinstance(content, dict):
        raise UnreadableAnswer("the failure is not an object")

    def text(*names: str) -> str:
        found = next((content[name] for name in names if isinstance(content.get(name), str)), "")
        return "".join(filter(str.isprintable, found))[:_MOST_PROBLEM_CHARACTERS]

    kind = text("kind")
    if not kind and status == _UNAUTHORIZED:
        # RFC 9110: the request was not applied because it lacks valid credentials.
        kind = "Authorization"
    return Problem(kind, text("detail", "title", "type", "message"), text("trace"), text("propertyPath"))


def cents_up(amount: Decimal | None) -> int | None:
    """Return EUR in cents, rounded up, so that a ceiling in cents is never passed unseen."""
    return None if amount is None else int((amount * 100).to_integral_value(rounding=ROUND_CEILING))


def order_to_json(intent: Intent, unit_cents: int | None = None) -> bytes:
    """Render an order to be placed, of one line (K20, K21, K33, K36, K47).

    `unit_cents` is the price to accept, the intent's limit unless given. It is written as an exact decimal, for which
    `json` has no type.
    """
    cents = intent.max_unit_cents if unit_cents is None else unit_cents
    fields = [f'"productId":{json.dumps(intent.product_id)}', f'"qty":{intent.quantity}']
    fields.append(f'"price":{cents // 100}.{cents % 100:02d}')
    if intent.key_type:
        fields.append(f'"keyType":{json.dumps(intent.key_type)}')
    if intent.offer_id:
        fields.append(f'"offerId":{json.dumps(intent.offer_id)}')
    line = ",".join(fields)
    return f'{{"orderExternalId":{json.dumps(intent.external_id)},"products":[{{{line}}}]}}'.encode()


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
