"""Kinguin-gateway and vault in memory: what their ports promise, implemented once for all tests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fulfillment.domain.model import ExternalId, KeyId, Purchase
from fulfillment.ports.supplier import ArrivedKey, Buying, CollectAnswer, Collected, NoAnswer, PlaceAnswer, Placed
from fulfillment.ports.vault import DownloadLink, KeyWish

from tests.unit.fulfillment.examples import NOON


@dataclass
class FakeSupplier:
    """Sells every purchase once, however often it is asked for. What is queued is answered first, and sells nothing."""

    sold: dict[ExternalId, Purchase] = field(default_factory=dict)
    placing: list[PlaceAnswer] = field(default_factory=list)
    collecting: list[CollectAnswer] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    products: dict[str, bool | None] = field(default_factory=dict)
    buyings: list[Buying] = field(default_factory=list)

    async def place(self, buying: Buying) -> PlaceAnswer:
        self.asked["place"] += 1
        self.buyings.append(buying)
        return self.placing.pop(0) if self.placing else self.sell(buying.purchase)

    def sell(self, purchase: Purchase) -> Placed:
        self.sold.setdefault(purchase.external_id, purchase)
        return Placed(supplier_order_id(purchase.external_id), "Lantern Hollow", 749 * purchase.quantity)

    async def collect(self, buying: Buying) -> CollectAnswer:
        self.asked["collect"] += 1
        return self.collecting.pop(0) if self.collecting else self.deliver(buying.purchase)

    def deliver(self, purchase: Purchase) -> CollectAnswer:
        if purchase.external_id not in self.sold:
            return NoAnswer()
        return collected(purchase, purchase.quantity)

    async def knows_product(self, product_id: str) -> bool | None:
        return self.products.get(product_id, True)


def supplier_order_id(external_id: ExternalId) -> str:
    return f"PHS-{external_id[-6:]}"


def key_ids(purchase: Purchase) -> Sequence[KeyId]:
    return [KeyId(f"key-{purchase.external_id}-{number}") for number in range(purchase.quantity)]


def collected(purchase: Purchase, count: int, *, held: int = 0, more: bool = False, ended: bool = False) -> Collected:
    """Give the first keys of a purchase; the last `held` of them were sold before."""
    keys = [
        ArrivedKey(key_id, "text/plain", held=number >= count - held)
        for number, key_id in enumerate(key_ids(purchase)[:count])
    ]
    return Collected(keys, "Lantern Hollow", more_ready=more, ended=ended)


@dataclass
class FakeVault:
    """Opens every key for whoever is let through to it."""

    wishes: list[KeyWish] = field(default_factory=list)

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        self.wishes.append(wish)
        return DownloadLink("https://r2.example/keys/1?signed", NOON, "content.key.jwe", bytes(32))

    async def reveal_key(self, wish: KeyWish) -> str:
        self.wishes.append(wish)
        return "key.jwe"
