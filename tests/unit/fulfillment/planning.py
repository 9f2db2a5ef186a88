"""What can be for sale and what can be wished for, drawn at random, for the planner's tests."""

from dataclasses import replace

from fulfillment.domain.model import Item, ItemId, OrderId
from fulfillment.domain.planner import Place, Plan, Planned, Unplannable, Wish, external_id
from fulfillment.domain.product import Offer, Product, Tier
from hypothesis import strategies as st

ORDER = OrderId("order-1")
LINE = ItemId("item-1")
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=64)
LUCK = st.randoms(use_true_random=False)
LIMIT = 20
PRICES = st.integers(1, 30)


def a_wish(quantity: int, *, offer_id: str = "", key_type: str = "", limit: int = LIMIT, attempt: int = 1) -> Wish:
    item = Item(LINE, "product-1", quantity, limit, offer_id, key_type)
    own = Place(external_id(ORDER, LINE, 0, attempt), 0, attempt)
    return Wish(ORDER, item, quantity, own, "DE", limit, next_chunk=1)


def an_offer(offer_id: str, price: int | None, available: int, *tiers: tuple[int, int], text: int = 0) -> Offer:
    return Offer(offer_id, price, available, text, [Tier(*tier) for tier in tiers])


def a_product(*offers: Offer, price: int | None = 5, available: int = 0, preorder: bool = False) -> Product:
    return Product("product-1", "A game", preorder, None, frozenset({"RU"}), offers, price, available, 0)


@st.composite
def some_offers(draw: st.DrawFn, *, priced: bool = False) -> Offer:
    available = draw(st.one_of(st.integers(0, 30), st.integers(0, 1200)))
    levels = draw(st.sets(st.sampled_from([10, 50, 100, 500])))
    tiers = [Tier(level, draw(PRICES)) for level in sorted(levels)]
    price = draw(PRICES if priced else st.one_of(PRICES, PRICES, st.none()))
    return Offer(draw(st.sampled_from("abcdef")), price, available, draw(st.integers(0, available)), tiers)


def some_products(*, preorder: bool = False, priced: bool = False) -> st.SearchStrategy[Product]:
    listed = st.lists(some_offers(priced=priced), max_size=6, unique_by=lambda offer: offer.offer_id)
    price = st.one_of(PRICES, st.none())
    return st.builds(
        lambda offers, price, available: a_product(*offers, price=price, available=available, preorder=preorder),
        *(listed, price, st.integers(0, 60)),
    )


QUANTITIES = st.one_of(st.integers(1, 40), st.integers(1, 1000))
PRODUCTS = some_products()
WISHES = st.builds(
    lambda quantity, offer_id, key_type, avoid: replace(
        a_wish(quantity, offer_id=offer_id, key_type=key_type), avoid=avoid
    ),
    *(QUANTITIES, st.sampled_from(["", "", "", "a"]), st.sampled_from(["", "text"])),
    st.frozensets(st.sampled_from("abcdef"), max_size=2),
)


def purchases(planned: Plan | Unplannable) -> list[Planned]:
    return [planned.own, *planned.more] if isinstance(planned, Plan) else []
