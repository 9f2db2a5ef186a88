"""What the supplier accepts as an order: its shape first, then its limits. Pure: no stock, no money, no clock.

The shape (what `openapi.yaml` says) and the limits are `ConstraintViolation` with 400; what a particular product does
not allow has a kind of its own and 422. Numbers in brackets name the rule in the supplier's public documentation.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus

from sandbox.kinguin.catalogue import TIER_QUANTITIES, Offer, Product
from sandbox.kinguin.problems import Refusal, violation

MOST_PER_OFFER = 9
MOST_LINES = 10
MOST_IN_ALL = 90
LEAST_WHOLESALE = TIER_QUANTITIES[0]
MOST_WHOLESALE = 1000
# Our own limits, so that nothing that is sent can grow without bound.
MOST_CHARACTERS = 255
MOST_PRICE = Decimal(1_000_000)
_MOST_DIGITS = 30

REFUSED = HTTPStatus.UNPROCESSABLE_ENTITY


@dataclass(frozen=True, slots=True)
class Line:
    """One product of an order. `price` is the most that is accepted per unit (K22)."""

    product_id: str
    qty: int
    price: Decimal
    key_type: str | None = None
    offer_id: str | None = None


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """What a buyer asks for."""

    lines: tuple[Line, ...]
    external_id: str | None = None


def parse_place_order(body: object) -> PlaceOrder:
    """Read the body of a request. Raises Refusal at the first field that is wrong."""
    if not isinstance(body, dict):
        raise violation("The request body must be an object.", "")
    if "couponCode" in body:
        raise violation('The "couponCode" property is not supported any more.', "couponCode")  # K26
    products = body.get("products")
    if not isinstance(products, list):
        raise violation('The "products" property must be an array.', "products", products)
    if not 1 <= len(products) <= MOST_LINES:
        detail = f'Invalid "products" property. There must be 1 to {MOST_LINES} elements.'
        raise violation(detail, "products", len(products))  # K20
    external_id = _text(body, "orderExternalId", "orderExternalId") if "orderExternalId" in body else None
    lines = tuple(_parse_line(line, f"products[{index}]") for index, line in enumerate(products))
    return PlaceOrder(lines, external_id or None)


def _parse_line(body: object, path: str) -> Line:
    if not isinstance(body, dict):
        raise violation("Each product must be an object.", path)
    key_type = body.get("keyType")
    if "keyType" in body and key_type != "text":
        raise violation('The "keyType" property can only be "text".', f"{path}.keyType", key_type)  # K23
    return Line(
        product_id=_text(body, "productId", f"{path}.productId"),
        qty=_qty(body.get("qty"), f"{path}.qty"),
        price=_price(body.get("price"), f"{path}.price"),
        key_type=key_type,
        offer_id=_text(body, "offerId", f"{path}.offerId") if "offerId" in body else None,
    )


def _text(body: Mapping[object, object], name: str, path: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        raise violation(f'The "{name}" property must be a string of at most {MOST_CHARACTERS} characters.', path)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise violation(f'The "{name}" property is not valid Unicode.', path)
    return value


def _qty(value: object, path: str) -> int:
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _MOST_DIGITS and value == int(value):
        value = int(value)  # JSON does not tell 1.0 from 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise violation('The "qty" property must be an integer.', path, value)
    if value < 1:
        raise violation('The "qty" property must be at least 1.', path, value)
    return value


def _price(value: object, path: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise violation('The "price" property must be a number.', path, value)
    price = Decimal(value)
    if not 0 <= price <= MOST_PRICE:
        raise violation('The "price" property is out of range.', path, value)
    return price


def check_limits(order: PlaceOrder, products: Mapping[str, Product]) -> None:
    """Refuse an order that no stock and no money could make acceptable."""
    for line in order.lines:
        _check_offered(line, products)
    _check_preorder(order, products)
    _check_total(order, products)
    for index, line in enumerate(order.lines):
        _check_qty(line, products, f"products[{index}].qty")
    _check_per_offer(order, products)


def is_wholesale(line: Line, products: Mapping[str, Product]) -> bool:
    """Tell whether a line buys more than one may buy without a wholesale offer."""
    offer = _offer(line, products)
    return line.qty >= LEAST_WHOLESALE and offer is not None and bool(offer.tiers)


def unit_price(offer: Offer, present_price: Decimal, qty: int) -> Decimal:
    """Return what one key of an offer costs when so many are bought: the tier's price from 10 on (K31)."""
    return offer.tier_price(qty) or present_price


def _offer(line: Line, products: Mapping[str, Product]) -> Offer | None:
    return products[line.product_id].offer(line.offer_id) if line.offer_id is not None else None


def _check_offered(line: Line, products: Mapping[str, Product]) -> None:
    if line.product_id not in products:
        raise Refusal("ProductUnavailable", REFUSED, f'Product "{line.product_id}" is not available.')
    if line.offer_id is not None and _offer(line, products) is None:
        raise Refusal("ProductUnavailable", REFUSED, f'Offer "{line.offer_id}" is not available.')


def _check_preorder(order: PlaceOrder, products: Mapping[str, Product]) -> None:
    for line in order.lines:
        if not products[line.product_id].is_preorder:
            continue
        if line.key_type is not None:
            raise Refusal("Preorder", REFUSED, "The key type cannot be chosen for a pre-order.")  # K34
        if len(order.lines) > 1:
            raise Refusal("Preorder", REFUSED, "A pre-order must be alone in its order.")  # K36
        if line.qty > 1:
            raise Refusal("Preorder", REFUSED, "Only one pre-order can be bought in one order.")  # K35


def _check_total(order: PlaceOrder, products: Mapping[str, Product]) -> None:
    total = sum(line.qty for line in order.lines)
    most = MOST_WHOLESALE if any(is_wholesale(line, products) for line in order.lines) else MOST_IN_ALL
    if total > most:  # K21, K29
        detail = f'Invalid "products" property. Sum of total values of "qty" must be lower than or equal {most}.'
        raise violation(detail, "products", total)


def _check_qty(line: Line, products: Mapping[str, Product], path: str) -> None:
    if line.qty <= MOST_PER_OFFER:
        return
    if line.offer_id is None:  # K19, K27
        detail = f'At most {MOST_PER_OFFER} can be bought of an offer; wholesale needs an "offerId".'
        raise violation(detail, path, line.qty)
    if not is_wholesale(line, products):  # K19, K30
        raise violation(f"At most {MOST_PER_OFFER} can be bought: this offer has no wholesale.", path, line.qty)
    if line.qty > MOST_WHOLESALE:  # K28
        raise violation(f"At most {MOST_WHOLESALE} can be bought of a wholesale offer.", path, line.qty)


def _check_per_offer(order: PlaceOrder, products: Mapping[str, Product]) -> None:
    """Refuse an offer that is named by several lines for more than the limit in sum."""
    named: Counter[str] = Counter()
    for line in order.lines:
        if line.offer_id is not None:
            named[line.offer_id] += line.qty
    for line in order.lines:
        if line.offer_id is None:
            continue
        most = MOST_WHOLESALE if is_wholesale(line, products) else MOST_PER_OFFER
        if named[line.offer_id] > most:
            raise violation(f"At most {most} can be bought of one offer.", "products", named[line.offer_id])
