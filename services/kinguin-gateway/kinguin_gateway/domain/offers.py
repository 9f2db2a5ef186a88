"""What is looked at before anything is bought: may this product be bought so, and which unit price is sent.

The supplier would refuse most of this itself, but its no is not always clear and then costs minutes of doubt; and some
of it (a country, a stock that is only promised) it does not refuse at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kinguin_gateway.domain.purchase import Intent, Offer, Problem, Product

# K19: the supplier sells at most this many of one offer in an order, unless wholesale.
MOST_PER_OFFER = 9
# K28 to K30: from here on, and up to here, an offer may be sold wholesale.
LEAST_WHOLESALE = 10
MOST_WHOLESALE = 1000

# Our own words beside the supplier's kinds; each has its row in docs/errors.md.
PRODUCT_UNKNOWN = "product_unknown"
COUNTRY_EXCLUDED = "country_excluded"
PRICE_ABOVE_LIMIT = "price_above_limit"
OUT_OF_STOCK = "out_of_stock"
NOT_WHOLESALE = "not_wholesale"
PREORDER_RULES = "preorder_rules"


@dataclass(frozen=True, slots=True)
class Checked:
    """What the product says about an intent: a refusal, or the unit price to send.

    `release_time` is when a pre-order's keys are to come, where that is told.
    """

    refusal: Problem | None = None
    unit_cents: int | None = None
    preorder: bool = False
    release_time: datetime | None = None


def is_wholesale(intent: Intent) -> bool:
    """Tell whether more is bought than one may buy without a wholesale offer."""
    return intent.quantity >= LEAST_WHOLESALE


def check(product: Product | None, intent: Intent, country_code: str) -> Checked:
    """Say whether the product can be bought as intended, for a customer in this country (empty: not known)."""
    if product is None:
        # K8: the same answer where it is sold out.
        return _refused(PRODUCT_UNKNOWN, "the supplier does not know or sell this product")
    if country_code and country_code.upper() in product.excluded_countries:
        return _refused(COUNTRY_EXCLUDED, f"it cannot be activated in {country_code.upper()}")
    offers = _offers(product, intent)
    if product.preorder:
        return _check_preorder(product, offers, intent)
    return _check_wholesale(offers, intent) if is_wholesale(intent) else _check_usual(offers, intent)


def _offers(product: Product, intent: Intent) -> Sequence[Offer]:
    """Return the offers that may serve the intent; a product that lists none is one offer by itself."""
    offers = product.offers or (Offer(product.price_cents, product.available, available_text=product.available),)
    return [offer for offer in offers if intent.offer_id in {"", offer.offer_id}]


def _check_preorder(product: Product, offers: Sequence[Offer], intent: Intent) -> Checked:
    if intent.key_type:
        return _refused(PREORDER_RULES, "the key type cannot be chosen for a pre-order")  # K34
    if intent.quantity != 1:
        return _refused(PREORDER_RULES, "a pre-order is bought one by one")  # K35, K36
    # Nothing is there before the release, so that stock says nothing.
    if not _affordable(offers, intent):
        return _above(offers, intent)
    return Checked(unit_cents=intent.max_unit_cents, preorder=True, release_time=product.release_time)


def _check_wholesale(offers: Sequence[Offer], intent: Intent) -> Checked:
    if not intent.offer_id:
        return _refused(
            NOT_WHOLESALE, f"{LEAST_WHOLESALE} keys or more are bought of one offer, which is not named"
        )  # K27
    if intent.quantity > MOST_WHOLESALE:
        return _refused(NOT_WHOLESALE, f"at most {MOST_WHOLESALE} keys are sold at once")  # K28, K29
    for offer in offers:
        reached = [tier.price_cents for tier in offer.tiers if intent.quantity >= tier.min_quantity]
        if not reached:
            continue
        if reached[-1] > intent.max_unit_cents:
            return _refused(PRICE_ABOVE_LIMIT, f"its wholesale price is {reached[-1]} cents")
        if _there(offer, intent) < intent.quantity:
            return _refused(OUT_OF_STOCK, f"{_there(offer, intent)} keys are there")
        return Checked(unit_cents=reached[-1])  # K31
    return _refused(NOT_WHOLESALE, f"the offer is not sold wholesale: at most {MOST_PER_OFFER} keys")  # K19, K30


def _check_usual(offers: Sequence[Offer], intent: Intent) -> Checked:
    stocked = [offer for offer in offers if _there(offer, intent)]
    if not stocked:
        return _refused(OUT_OF_STOCK, "no key is there")  # K14
    affordable = _affordable(stocked, intent)
    if not affordable:
        return _above(stocked, intent)
    there = sum(min(_there(offer, intent), MOST_PER_OFFER) for offer in affordable)
    if there < intent.quantity:
        return _refused(OUT_OF_STOCK, f"{there} keys are there within the limit")  # K14
    return Checked(unit_cents=intent.max_unit_cents)  # K22


def _there(offer: Offer, intent: Intent) -> int:
    return offer.available_text if intent.key_type else offer.available


def _affordable(offers: Sequence[Offer], intent: Intent) -> Sequence[Offer]:
    # A price that is not told cannot speak against it; what is sent is the limit.
    return [offer for offer in offers if offer.price_cents is None or offer.price_cents <= intent.max_unit_cents]


def _above(offers: Sequence[Offer], intent: Intent) -> Checked:
    prices = [offer.price_cents for offer in offers if offer.price_cents is not None]
    if not prices:
        return _refused(OUT_OF_STOCK, "the offer is not there")
    return _refused(PRICE_ABOVE_LIMIT, f"its price is {min(prices)} cents, the limit {intent.max_unit_cents}")


def _refused(kind: str, detail: str) -> Checked:
    return Checked(refusal=Problem(kind, detail))
