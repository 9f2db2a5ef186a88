"""A product as the supplier sells it now, as far as planning looks at it. Money is in EUR cents."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Tier:
    """A unit price from so many keys of one offer on (K31)."""

    min_quantity: int
    price: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What one merchant offers. `available` counts keys that are there (K14), `available_text` those as text.

    `price` is None where it is not told; `tiers` is empty where the offer is not sold wholesale.
    """

    offer_id: str
    price: int | None
    available: int
    available_text: int
    tiers: Sequence[Tier] = ()


@dataclass(frozen=True, slots=True)
class Product:
    """What is sold, and by whom. Countries are in capitals; `price` is the cheapest, None where it is not told.

    A product that lists no offers is sold all the same: `price` and `available` then speak for it.
    """

    product_id: str
    name: str
    preorder: bool
    release_time: datetime | None
    excluded_countries: frozenset[str]
    offers: Sequence[Offer]
    price: int | None
    available: int
    available_text: int
