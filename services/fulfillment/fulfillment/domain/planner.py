"""From what was ordered to what is bought: chunks within the supplier's limits, under derived references.

Each purchase holds one line of one offer: two lines of one product could not be told apart (K47), and a purchase so
small is never near the supplier's 10 lines and 90 keys (K20, K21). What is planned for a product passes the check that
kinguin-gateway makes of the same product before it buys.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from fulfillment.domain.model import ExternalId, Item, ItemId, KeyId, OrderId
from fulfillment.domain.product import Offer, Product

MOST_PER_PURCHASE = 9
"""K19: at most 9 keys of one offer in an order, unless wholesale."""
LEAST_WHOLESALE = 10
"""K30: wholesale is for more than 9."""
MOST_WHOLESALE = 1000
"""K28, K29: at most so many keys of an offer, and in an order."""
LANES = 5
"""Number of lanes in which purchases wait."""
MOST_COUNTED = 256
"""From so many on, whatever waits behind is in the last lane: nobody has to count further."""

# Never change any: a restored database must derive the references that are at the supplier already.
_PREFIX = "kf1"
_DIGEST_CHARACTERS = 32
_REPLACEMENT = "replacement"

# Attempts of a chunk in our database that are passed over in search of its next one. Each lasts minutes or hours.
_MOST_ATTEMPTS_PASSED = 64
# A chunk that is refused for good is given up long before.
_MOST_ATTEMPTS = 1000

PRODUCT_UNKNOWN = "product_unknown"
COUNTRY_EXCLUDED = "country_excluded"
PRICE_ABOVE_LIMIT = "price_above_limit"
OUT_OF_STOCK = "out_of_stock"
PREORDER_RULES = "preorder_rules"


@dataclass(frozen=True, slots=True)
class Place:
    """A purchase by its reference, and where in its line it stands."""

    external_id: ExternalId
    chunk: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be planned: `quantity` keys of a line, or of one chunk of it, on behalf of the purchase `own`.

    `limit` is the highest unit price in EUR cents; `next_chunk` the first free chunk number of the line; `avoid` the
    offers that refused earlier attempts of this chunk. `country_code` is empty where it is not known.
    """

    order_id: OrderId
    item: Item
    quantity: int
    own: Place
    country_code: str
    limit: int
    next_chunk: int
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """A purchase of the line that kinguin-gateway knows and our restored database does not: never bought again."""

    external_id: ExternalId
    quantity: int
    offer_id: str
    max_unit_price: int
    refused: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """One purchase to be made. Without `offer_id` the supplier chooses; `unit_limit` is in EUR cents."""

    external_id: ExternalId
    item_id: ItemId
    chunk: int
    attempt: int
    quantity: int
    offer_id: str
    unit_limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the purchase that asked becomes, and what is bought beside it.

    `own` holds no key when others that are known already hold them all: nothing must be bought for it then.
    """

    own: Planned
    more: Sequence[Planned]


@dataclass(frozen=True, slots=True)
class Unplannable:
    """Nothing can be bought now, in kinguin-gateway's words. Never its `not_wholesale`: no plan needs wholesale."""

    kind: str


@dataclass(frozen=True, slots=True)
class _Piece:
    offer_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of buying of an offer: `least` to `most` keys at a unit price. `lot` is the offer's place in the list."""

    lot: int
    offer_id: str
    price: int | None
    stock: int
    least: int
    most: int


def external_id(order_id: OrderId, item_id: ItemId, chunk: int, attempt: int) -> ExternalId:
    """Derive our reference at the supplier. Attempt n + 1 exists only after attempt n was refused."""
    return _reference(order_id, item_id, str(chunk), str(attempt))


def replacement_id(order_id: OrderId, item_id: ItemId, key_id: KeyId, attempt: int) -> ExternalId:
    """Derive our reference of the purchase that buys another key in place of this one."""
    # One part more than a chunk's reference has, and no part can hold the separator: the two never meet.
    return _reference(order_id, item_id, _REPLACEMENT, key_id, str(attempt))


def lane(position: int) -> int:
    """Return in which lane a purchase waits, given how many of the same customer wait before it; lane 0 goes first.

    What orders little is never behind what orders much: of an order of 1,000 keys no more purchases are in lane 0 than
    of one of 36, and the rest waits behind everybody's first. By factors of four few lanes tell few from very many.
    """
    return min(LANES - 1, max(0, position.bit_length() - 1) // 2)


def plan(wish: Wish, product: Product | None, known: Sequence[Known] = ()) -> Plan | Unplannable:
    """Say what is bought where: the cheapest first, each ordered key once, and nothing above the limit.

    What is known already is adopted. What the stock does not suffice for is planned without an offer: kinguin-gateway
    refuses it with the reason of that moment, and it is tried later.
    """
    ours = next((each for each in known if each.external_id == wish.own.external_id), None)
    free = _free_chunks(wish, known)
    adopted = _adopt(wish, known, ours, free)
    missing = wish.quantity - sum(each.quantity for each in adopted) - (ours.quantity if ours else 0)
    pieces = _pieces(wish, product, missing) if missing > 0 else []
    if isinstance(pieces, Unplannable):
        if ours is None and not adopted:
            return pieces
        # A part is bought already, so that only the rest may fail.
        pieces = _unassigned(wish, product, missing)
    if ours is not None:
        own = _planned(wish, wish.own, ours.quantity, ours.offer_id, ours.max_unit_price)
    else:
        first, *pieces = pieces or [_Piece(wish.item.offer_id, 0)]
        own = _planned(wish, wish.own, first.quantity, first.offer_id, wish.limit)
    fresh = [
        _planned(wish, _first_attempt(wish, next(free)), piece.quantity, piece.offer_id, wish.limit) for piece in pieces
    ]
    return Plan(own, [*adopted, *fresh])


def _pieces(wish: Wish, product: Product | None, quantity: int) -> list[_Piece] | Unplannable:
    """Cut `quantity` keys into purchases, in the order in which kinguin-gateway looks for faults."""
    if product is None:
        return Unplannable(PRODUCT_UNKNOWN)
    if wish.country_code.upper() in product.excluded_countries:
        return Unplannable(COUNTRY_EXCLUDED)
    if product.preorder and wish.item.key_type:
        return Unplannable(PREORDER_RULES)  # K34
    offers = [offer for offer in _offers(product) if wish.item.offer_id in {"", offer.offer_id}]
    ways = [way for lot, offer in enumerate(offers) for way in _ways(wish, product, lot, offer)]
    pieces = _cheapest_first(wish, ways, quantity)
    if not pieces:
        return _why_nothing(wish, product, offers)
    return pieces + _unassigned(wish, product, quantity - sum(piece.quantity for piece in pieces))


def _offers(product: Product) -> Sequence[Offer]:
    # One that lists none is one offer by itself, of which nobody says how much is text (as kinguin-gateway has it).
    return product.offers or [Offer("", product.price, product.available, available_text=product.available)]


def _ways(wish: Wish, product: Product, lot: int, offer: Offer) -> Iterator[_Way]:
    """Tell how an offer can be bought within the limit: up to 9 at its price, and by each tier that it has."""
    stock = _stock(wish, product, offer)
    if _is_within_limit(wish, product, offer):
        yield _Way(lot, offer.offer_id, offer.price, stock, 1, _most_at_once(product))
    if product.preorder or not offer.offer_id:
        return  # K27, K35
    tiers = sorted(offer.tiers, key=lambda tier: (tier.min_quantity, tier.price))
    for tier, above in zip_longest(tiers, tiers[1:]):
        least = max(tier.min_quantity, LEAST_WHOLESALE)
        most = min(above.min_quantity - 1, MOST_WHOLESALE) if above else MOST_WHOLESALE
        if tier.price <= wish.limit:
            yield _Way(lot, offer.offer_id, tier.price, stock, least, most)


def _cheapest_first(wish: Wish, ways: Sequence[_Way], quantity: int) -> list[_Piece]:
    """Take of each way what is there, in one pass: a way that cannot be gone now never can be with less to buy."""
    left = {way.lot: way.stock for way in ways}
    pieces = list[_Piece]()
    for way in sorted(ways, key=lambda way: _rank(wish, way)):
        while (taken := min(way.most, left[way.lot], quantity)) >= way.least:
            pieces.append(_Piece(way.offer_id, taken))
            left[way.lot] -= taken
            quantity -= taken
    return pieces


def _rank(wish: Wish, way: _Way) -> tuple[bool, bool, int, bool, int, str, int]:
    # At one price not wholesale, which can never be given back (K33). The rest makes the choice the same always.
    is_wholesale = way.least >= LEAST_WHOLESALE
    is_avoided = way.offer_id in wish.avoid
    return is_avoided, way.price is None, way.price or 0, is_wholesale, -way.stock, way.offer_id, -way.most


def _stock(wish: Wish, product: Product, offer: Offer) -> int:
    if product.preorder:
        return wish.quantity  # Nothing is there before the release, so that stock says nothing.
    return offer.available_text if wish.item.key_type else offer.available


def _is_within_limit(wish: Wish, product: Product, offer: Offer) -> bool:
    price = product.price if offer.price is None else offer.price
    if price is None:
        # By itself it can cost no more than the limit that is sent; among offers there may be one that has a price.
        return not product.offers
    return price <= wish.limit


def _why_nothing(wish: Wish, product: Product, offers: Sequence[Offer]) -> Unplannable:
    stocked = [offer for offer in offers if _stock(wish, product, offer)]
    is_priced = any(offer.price is not None or product.price is not None for offer in stocked)
    return Unplannable(PRICE_ABOVE_LIMIT if is_priced else OUT_OF_STOCK)


def _unassigned(wish: Wish, product: Product | None, quantity: int) -> list[_Piece]:
    """Cut what no stock is seen for; the supplier chooses the offer, unless the shop insists on one."""
    most = _most_at_once(product)
    return [_Piece(wish.item.offer_id, min(most, quantity - begin)) for begin in range(0, quantity, most)]


def _most_at_once(product: Product | None) -> int:
    return 1 if product is not None and product.preorder else MOST_PER_PURCHASE  # K35, K36


def _adopt(wish: Wish, known: Sequence[Known], ours: Known | None, free: Iterator[int]) -> list[Planned]:
    """Take over what was bought before our database forgot it, as far as it belongs to this wish."""
    if wish.own.external_id != external_id(wish.order_id, wish.item.item_id, wish.own.chunk, wish.own.attempt):
        return []  # A replacement buys beside what was ordered: nothing of the line serves it.
    places = _places(wish, known)
    adoptable = [
        each
        for each in sorted(known, key=lambda each: _in_line(each, places))
        if each is not ours and not each.refused and _is_unclaimed(wish, places, ours, places.get(each.external_id))
    ]
    return [
        _planned(
            wish,
            places.get(each.external_id) or Place(each.external_id, next(free), 1),
            each.quantity,
            each.offer_id,
            each.max_unit_price,
        )
        for each in _fitting(adoptable, wish.quantity - (ours.quantity if ours else 0))
    ]


def _in_line(each: Known, places: Mapping[ExternalId, Place]) -> tuple[bool, int, int, str]:
    place = places.get(each.external_id)
    return place is None, place.chunk if place else 0, place.attempt if place else 0, each.external_id


def _is_unclaimed(wish: Wish, places: Mapping[ExternalId, Place], ours: Known | None, place: Place | None) -> bool:
    """Tell whether no purchase in our database will come to this one by itself, by being refused again.

    Of a chunk whose earlier attempts are all as forgotten as this one, none can. Our own chunk's later attempts are
    ours when own is refused; where own was never asked for, so that it cannot be, they must be adopted now.
    """
    if place is None:
        return True
    if place.chunk == wish.own.chunk:
        return ours is None
    earlier = (external_id(wish.order_id, wish.item.item_id, place.chunk, no) for no in range(1, place.attempt))
    return all(each in places for each in earlier)


def _fitting(found: Sequence[Known], room: int) -> Sequence[Known]:
    """Return those that come nearest to `room` keys together without exceeding it: all of them, but for two cases.

    When own was refused, or more than one chunk of the line was, some serve what the next attempt will ask for. Filling
    the room as far as possible leaves no more than that attempt has room for.
    """
    if sum(each.quantity for each in found) <= room:
        return found
    choices: dict[int, tuple[Known, ...]] = {0: ()}
    for each in found:
        for total, chosen in list(choices.items()):
            if (grown := total + each.quantity) <= room and grown not in choices:
                choices[grown] = (*chosen, each)
    return choices[max(choices)]


def _places(wish: Wish, known: Sequence[Known]) -> Mapping[ExternalId, Place]:
    """Find again where in the line references stand. They are digests, so that small numbers are tried."""
    sought = {each.external_id for each in known}
    places: dict[ExternalId, Place] = {}
    for chunk in range(wish.next_chunk + wish.quantity + len(known)):
        if len(places) == len(sought):
            break
        # The first attempts of a chunk that our database has are not sought; of another, none but the last is missing.
        patience = _MOST_ATTEMPTS_PASSED + wish.own.attempt if chunk < wish.next_chunk else 1
        for attempt in range(1, _MOST_ATTEMPTS):
            name = external_id(wish.order_id, wish.item.item_id, chunk, attempt)
            if name in sought:
                places[name] = Place(name, chunk, attempt)
            elif (patience := patience - 1) <= 0:
                break
    return places


def _free_chunks(wish: Wish, known: Sequence[Known]) -> Iterator[int]:
    """Count the chunks of which nobody has heard: enough for one purchase per key, and per one that is adopted."""
    taken = {each.external_id for each in known}
    last = wish.next_chunk + wish.quantity + 2 * len(known) + 1
    for chunk in range(wish.next_chunk, last):
        if chunk != wish.own.chunk and _first_attempt(wish, chunk).external_id not in taken:
            yield chunk


def _first_attempt(wish: Wish, chunk: int) -> Place:
    return Place(external_id(wish.order_id, wish.item.item_id, chunk, 1), chunk, 1)


def _planned(wish: Wish, place: Place, quantity: int, offer_id: str, unit_limit: int) -> Planned:
    return Planned(
        place.external_id, wish.item.item_id, place.chunk, place.attempt, quantity, offer_id, unit_limit=unit_limit
    )


def _reference(*parts: str) -> ExternalId:
    text = "\x1f".join(parts)
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    return ExternalId(f"{_PREFIX}-{digest[:_DIGEST_CHARACTERS]}")
