"""What the simulated supplier sells: thirteen invented products, one for each kind of trouble that a product can be.

Pure data. Prices and stock here are what a fresh or reset simulator starts with; the store holds the present ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

PictureType = Literal["image/png", "image/jpeg", "image/gif"]
TEXT = "text/plain"

# Wholesale tiers begin at these quantities (K31): level 1, 2, 3, 4.
TIER_QUANTITIES = (10, 50, 100, 500)


@dataclass(frozen=True, slots=True)
class Offer:
    """One merchant's offer. `text` and `image` count keys that are there, `promised` those that are only promised."""

    offer_id: str
    merchant: str
    price: Decimal
    text: int = 0
    image: int = 0
    promised: int = 0
    tiers: tuple[Decimal, ...] = ()

    def tier_price(self, qty: int) -> Decimal | None:
        """Return the wholesale unit price of a quantity; None where this offer has none for it."""
        reached = [price for least, price in zip(TIER_QUANTITIES, self.tiers, strict=False) if qty >= least]
        return reached[-1] if reached else None


@dataclass(frozen=True, slots=True)
class Product:
    """One product with its offers. `release_date` makes it a pre-order, `picture` says how its pictures are made."""

    product_id: str
    kinguin_id: int
    name: str
    offers: tuple[Offer, ...]
    platform: str = "Steam"
    region: str = "REGION FREE"
    genres: tuple[str, ...] = ("Adventure",)
    groups: int = 3
    picture: PictureType = "image/png"
    release_date: str | None = None
    excluded_countries: tuple[str, ...] = ()
    activation: str = "Open the platform, choose to activate a product, and type the key."

    @property
    def is_preorder(self) -> bool:
        """Whether its keys come only after the release date."""
        return self.release_date is not None

    def offer(self, offer_id: str) -> Offer | None:
        """Return one of its offers."""
        return next((offer for offer in self.offers if offer.offer_id == offer_id), None)


@dataclass(frozen=True, slots=True)
class OfferStock:
    """The present price and stock of an offer."""

    offer: Offer
    price: Decimal
    text: int
    image: int
    promised: int

    @property
    def available(self) -> int:
        """How many keys are physically there."""
        return self.text + self.image

    @property
    def qty(self) -> int:
        """How many keys can be ordered: those that are there and those that are promised (K14)."""
        return self.available + self.promised

    @property
    def text_qty(self) -> int:
        """How many of them are, or will be, text."""
        return self.text + (self.promised if self.text or not self.image else 0)


def _price(text: str) -> Decimal:
    return Decimal(text)


PRODUCTS: tuple[Product, ...] = (
    Product(
        "65a0c1d2e3f4051627380001",
        310001,
        "Lantern Hollow Steam CD Key",
        (Offer("65b0c1d2e3f4051627380001", "NordKeys", _price("7.49"), text=1_000_000),),
    ),
    Product(
        "65a0c1d2e3f4051627380002",
        310002,
        "Orbital Gardens Steam CD Key",
        (
            Offer("65b0c1d2e3f4051627380002", "Attic Games", _price("5.20"), text=6),
            Offer("65b0c1d2e3f4051627380012", "NordKeys", _price("5.79"), text=50_000),
        ),
    ),
    Product(
        "65a0c1d2e3f4051627380003",
        310003,
        "Paper Armada Retail Scan",
        (Offer("65b0c1d2e3f4051627380003", "Boxed & Bright", _price("11.90"), image=50_000),),
        picture="image/png",
        activation="The key is printed on the card in the picture.",
    ),
    Product(
        "65a0c1d2e3f4051627380004",
        310004,
        "Midnight Tramway Retail Photo",
        (Offer("65b0c1d2e3f4051627380004", "Boxed & Bright", _price("14.35"), image=50_000),),
        picture="image/jpeg",
        activation="The key is printed on the card in the picture.",
    ),
    Product(
        "65a0c1d2e3f4051627380005",
        310005,
        "Cinder and Salt Retail Scan",
        (Offer("65b0c1d2e3f4051627380005", "Old Shelf", _price("3.15"), image=50_000),),
        picture="image/gif",
        activation="The key is printed on the card in the picture.",
    ),
    Product(
        "65a0c1d2e3f4051627380006",
        310006,
        "Foxglove Protocol GOG CD Key",
        (Offer("65b0c1d2e3f4051627380006", "Attic Games", _price("9.05"), text=25_000, image=25_000),),
        platform="GOG COM",
        groups=5,
    ),
    Product(
        "65a0c1d2e3f4051627380007",
        310007,
        "Saltwind Saga: Tides PRE-ORDER Steam CD Key",
        (Offer("65b0c1d2e3f4051627380007", "NordKeys", _price("49.99"), text=500),),
        release_date="2031-03-14",
    ),
    Product(
        "65a0c1d2e3f4051627380008",
        310008,
        "Hexwright Utilities 1 Year Key",
        (
            Offer(
                "65b0c1d2e3f4051627380008",
                "Bulk Harbour",
                _price("4.00"),
                text=100_000,
                tiers=(_price("3.80"), _price("3.60"), _price("3.40"), _price("3.20")),
            ),
        ),
        platform="Other",
        groups=5,
    ),
    Product(
        "65a0c1d2e3f4051627380009",
        310009,
        "Brass Cartographer Steam CD Key",
        (Offer("65b0c1d2e3f4051627380009", "Attic Games", _price("6.66")),),
    ),
    Product(
        "65a0c1d2e3f405162738000a",
        310010,
        "Northern Relay LATAM Steam CD Key",
        (Offer("65b0c1d2e3f405162738000a", "NordKeys", _price("8.25"), text=50_000),),
        region="LATAM",
        excluded_countries=("AT", "CH", "DE", "FR", "GB", "PL", "US"),
        activation="Activate it from an address in Latin America. It can be played everywhere afterwards.",
    ),
    Product(
        "65a0c1d2e3f405162738000b",
        310011,
        "Quiet Reactor Steam CD Key",
        (Offer("65b0c1d2e3f405162738000b", "Attic Games", _price("12.10"), text=2, promised=38),),
    ),
    Product(
        "65a0c1d2e3f405162738000c",
        310012,
        "Voxel Wallet 20 EUR Code",
        (Offer("65b0c1d2e3f405162738000c", "Bulk Harbour", _price("18.90"), text=5),),
        platform="Other",
        groups=5,
        genres=("Prepaid",),
        activation="Redeem the code in the shop of the game. It is worth 20 EUR.",
    ),
    Product(
        "65a0c1d2e3f405162738000d",
        310013,
        "Tinderbox Tactics Rockstar CD Key",
        (
            Offer("65b0c1d2e3f405162738000d", "Attic Games", _price("2.95"), text=300),
            Offer(
                "65b0c1d2e3f405162738001d",
                "Bulk Harbour",
                _price("2.99"),
                text=40,
                tiers=(_price("2.70"), _price("2.50")),
            ),
            Offer(
                "65b0c1d2e3f405162738002d",
                "NordKeys",
                _price("3.30"),
                text=5_000,
                tiers=(_price("3.10"), _price("2.90"), _price("2.60"), _price("2.40")),
            ),
        ),
        platform="Rockstar Games Launcher",
        region="ROW (Rest of World)",
        genres=("Strategy", "Turn-Based"),
    ),
)

BY_ID = {product.product_id: product for product in PRODUCTS}


def _offer_json(product: Product, stock: OfferStock) -> dict[str, object]:
    body: dict[str, object] = {
        "offerId": stock.offer.offer_id,
        "name": product.name,
        "price": stock.price,
        "qty": stock.qty,
        "textQty": stock.text_qty,
        "availableQty": stock.available,
        "availableTextQty": stock.text,
        "isPreorder": product.is_preorder,
        "merchantName": stock.offer.merchant,
        "wholesale": {
            "enabled": bool(stock.offer.tiers),
            "tiers": [{"level": level, "price": price} for level, price in enumerate(stock.offer.tiers, start=1)],
        },
    }
    if product.release_date is not None:
        body["releaseDate"] = product.release_date
    return body


def product_json(product: Product, stocks: Sequence[OfferStock], *, updated_at: str) -> dict[str, object]:
    """Render a product. `price`, `qty` and `textQty` are those of the cheapest offers, `totalQty` of all."""
    selling = [stock for stock in stocks if stock.qty > 0]
    cheapest_price = min((stock.price for stock in selling), default=None)
    cheapest = [stock for stock in selling if stock.price == cheapest_price]
    body: dict[str, object] = {
        "kinguinId": product.kinguin_id,
        "productId": product.product_id,
        "name": product.name,
        "qty": sum(stock.qty for stock in cheapest),
        "textQty": sum(stock.text_qty for stock in cheapest),
        "totalQty": sum(stock.qty for stock in stocks),
        "isPreorder": product.is_preorder,
        "platform": product.platform,
        "regionalLimitations": product.region,
        "genres": list(product.genres),
        "countryLimitation": list(product.excluded_countries),
        "activationDetails": product.activation,
        "cheapestOfferId": [stock.offer.offer_id for stock in cheapest],
        "offers": [_offer_json(product, stock) for stock in selling],
        "updatedAt": updated_at,
    }
    if cheapest_price is not None:
        body["price"] = cheapest_price
    if product.release_date is not None:
        body["releaseDate"] = product.release_date
    return body
