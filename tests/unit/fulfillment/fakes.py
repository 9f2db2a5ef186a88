"""Kinguin-gateway and vault in memory: what their ports promise, implemented once for all tests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fulfillment.domain.model import ExternalId, KeyId, OrderId, Purchase
from fulfillment.domain.planner import Known
from fulfillment.domain.product import Offer, Product
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    CollectAnswer,
    Collected,
    NoAnswer,
    PlaceAnswer,
    Placed,
    ProductAnswer,
    Refused,
    ReturnAnswer,
    Returned,
    ReturnRefused,
    ReturnUnderWay,
    WithdrawAnswer,
)
from fulfillment.ports.vault import (
    DownloadLink,
    FoundKey,
    KeyWish,
    NoWord,
    RevokeAnswer,
    Revoked,
    SomeOpened,
    Upload,
    Uploaded,
)

from tests.unit.fulfillment.examples import NOON

PLENTY = 10_000
WITHDRAWN = Refused("withdrawn")


@dataclass
class FakeSupplier:
    """Sells every purchase once, however often it is asked. What is queued is answered first, and changes nothing."""

    sold: dict[ExternalId, Purchase] = field(default_factory=dict)
    withdrawn: set[ExternalId] = field(default_factory=set)
    """What is never sold any more."""
    given_back: dict[ExternalId, int] = field(default_factory=dict)
    """How often it was asked to take back what."""
    placing: list[PlaceAnswer] = field(default_factory=list)
    collecting: list[CollectAnswer] = field(default_factory=list)
    withdrawing: list[WithdrawAnswer] = field(default_factory=list)
    returning: list[ReturnAnswer] = field(default_factory=list)
    reading: list[ProductAnswer] = field(default_factory=list)
    telling: list[Sequence[tuple[str, Known]] | None] = field(default_factory=list)
    products: dict[str, ProductAnswer] = field(default_factory=dict)
    """What is not here has one offer, and plenty of it."""
    is_away: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    buyings: list[Buying] = field(default_factory=list)

    async def place(self, buying: Buying) -> PlaceAnswer:
        self.asked["place"] += 1
        if self.is_away:
            return NoAnswer()
        self.buyings.append(buying)
        return self.placing.pop(0) if self.placing else self.sell(buying.purchase)

    def sell(self, purchase: Purchase) -> Placed | Refused:
        if purchase.external_id in self.withdrawn:
            return WITHDRAWN
        self.sold.setdefault(purchase.external_id, purchase)
        return placed(purchase)

    async def collect(self, buying: Buying) -> CollectAnswer:
        self.asked["collect"] += 1
        if self.is_away:
            return NoAnswer()
        return self.collecting.pop(0) if self.collecting else self.deliver(buying.purchase)

    def deliver(self, purchase: Purchase) -> CollectAnswer:
        if purchase.external_id not in self.sold:
            return NoAnswer()
        return collected(purchase, purchase.quantity)

    async def withdraw(self, buying: Buying) -> WithdrawAnswer:
        self.asked["withdraw"] += 1
        if self.is_away:
            return NoAnswer()
        return self.withdrawing.pop(0) if self.withdrawing else self.call_off(buying.purchase)

    def call_off(self, purchase: Purchase) -> Placed | Refused:
        if purchase.external_id in self.sold:
            return placed(purchase)
        self.withdrawn.add(purchase.external_id)
        return WITHDRAWN

    async def give_back(self, purchase: Purchase) -> ReturnAnswer:
        self.asked["give_back"] += 1
        if self.is_away:
            return NoAnswer()
        return self.returning.pop(0) if self.returning else self.take_back(purchase)

    def take_back(self, purchase: Purchase) -> ReturnAnswer:
        if purchase.external_id not in self.sold:
            return ReturnRefused("unknown")
        times = self.given_back.get(purchase.external_id, 0)
        self.given_back[purchase.external_id] = times + 1
        return Returned() if times else ReturnUnderWay()

    async def read_product(self, product_id: str) -> ProductAnswer:
        self.asked["read_product"] += 1
        if self.is_away:
            return NoAnswer()
        return self.reading.pop(0) if self.reading else self.products.get(product_id, a_product(product_id))

    async def known_purchases(self, order_id: OrderId) -> Sequence[tuple[str, Known]] | None:
        self.asked["known_purchases"] += 1
        if self.is_away:
            return None
        return self.telling.pop(0) if self.telling else self.tell(order_id)

    def tell(self, order_id: OrderId) -> Sequence[tuple[str, Known]]:
        return [(each.item_id, known(each)) for each in self.sold.values() if each.order_id == order_id]


def supplier_order_id(external_id: ExternalId) -> str:
    return f"PHS-{external_id[-6:]}"


def placed(purchase: Purchase) -> Placed:
    return Placed(supplier_order_id(purchase.external_id), "Lantern Hollow", 749 * purchase.quantity)


def known(purchase: Purchase, *, refused: bool = False) -> Known:
    """Tell of a purchase as kinguin-gateway does."""
    limit = purchase.unit_limit or 0
    return Known(purchase.external_id, purchase.quantity, purchase.offer_id, limit, refused)


def an_offer(offer_id: str = "offer-1", price: int = 749, available: int = PLENTY) -> Offer:
    return Offer(offer_id, price, available, available)


def a_product(product_id: str = "product-1", *offers: Offer, preorder: bool = False) -> Product:
    """Sell a product everywhere; by one merchant with plenty of it where no other is named."""
    listed = offers or (an_offer(),)
    return Product(
        product_id=product_id,
        name="Lantern Hollow",
        preorder=preorder,
        release_time=None,
        excluded_countries=frozenset(),
        offers=listed,
        price=min((offer.price for offer in listed if offer.price is not None), default=None),
        available=sum(offer.available for offer in listed),
        available_text=sum(offer.available_text for offer in listed),
    )


def key_ids(purchase: Purchase) -> Sequence[KeyId]:
    return [KeyId(f"key-{purchase.external_id}-{number}") for number in range(purchase.quantity)]


def collected(
    purchase: Purchase, count: int, *, held: int = 0, more: bool = False, ended: bool = False, unreadable: int = 0
) -> Collected:
    """Give the first keys of a purchase; the last `held` of them were sold before."""
    keys = [
        ArrivedKey(key_id, "text/plain", held=number >= count - held)
        for number, key_id in enumerate(key_ids(purchase)[:count])
    ]
    return Collected(keys, "Lantern Hollow", more_ready=more, ended=ended, unreadable=unreadable)


def found(purchase: Purchase, number: int = 0, **changes: object) -> FoundKey:
    """Find one of the keys of a purchase at vault."""
    number_there = supplier_order_id(purchase.external_id)
    key = FoundKey(key_ids(purchase)[number], purchase.item_id, number_there, "text/plain")
    return replace(key, **changes)  # type: ignore[arg-type] # fields by name


@dataclass
class FakeVault:
    """Opens every key for whoever is let through to it. What its owner has `opened` it does not take away."""

    wishes: list[KeyWish] = field(default_factory=list)
    opened: set[KeyId] = field(default_factory=set)
    revoked: set[KeyId] = field(default_factory=set)
    shredded: set[KeyId] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """Uploads by their `key_jwe` that were sold before."""
    revoking: list[RevokeAnswer] = field(default_factory=list)
    untold: list[FoundKey] = field(default_factory=list)
    """Sealed keys that are named to whoever asks for the keys of an order, and were to nobody else."""
    is_away: bool = False

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        self.wishes.append(wish)
        return DownloadLink("https://r2.example/keys/1?signed", NOON, "content.key.jwe", bytes(32))

    async def reveal_key(self, wish: KeyWish) -> str:
        self.wishes.append(wish)
        return "key.jwe"

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:  # noqa: ARG002 # tests have one order
        return NoWord() if self.is_away else list(self.untold)

    async def revoke_keys(self, order_id: OrderId, key_ids: Sequence[KeyId], *, why: str) -> RevokeAnswer:  # noqa: ARG002 # the port's
        if self.revoking:
            return self.revoking.pop(0)
        return NoWord() if self.is_away else self.take_away(key_ids)

    def take_away(self, key_ids: Sequence[KeyId]) -> RevokeAnswer:
        if opened := sorted(self.opened & set(key_ids)):
            return SomeOpened(opened)
        self.revoked |= set(key_ids)
        return Revoked()

    async def shred_key(self, order_id: OrderId, key_id: KeyId, *, why: str) -> bool:  # noqa: ARG002 # the port's
        if self.is_away or key_id not in self.revoked:
            return False
        self.shredded.add(key_id)
        return True

    async def upload_jwk(self) -> bytes:
        return b'{"kty":"EC"}'

    async def seal_upload(self, upload: Upload) -> Uploaded:
        self.uploads.setdefault(upload.source_ref, upload)
        return Uploaded(KeyId(f"key-of-{upload.source_ref}"), held=upload.key_jwe in self.held)
