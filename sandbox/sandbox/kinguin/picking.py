"""Which offers an order is served from. Pure: stock in, picks out.

Without an `offerId` the supplier serves a line from the cheapest offers within the accepted price, several if it must
(K22). Without `keyType` the kind of each key is a matter of luck (K23): of the given random numbers here.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sandbox.kinguin.catalogue import OfferStock, Product
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import MOST_PER_OFFER, REFUSED, Line, PlaceOrder, is_wholesale, unit_price


@dataclass(frozen=True, slots=True)
class Pick:
    """Keys from one offer for one line: `text` and `image` are there, `late` are only promised."""

    line: Line
    offer_id: str
    price: Decimal
    text: int
    image: int
    late: int

    @property
    def qty(self) -> int:
        """How many keys these are."""
        return self.text + self.image + self.late


def pick_offers(
    order: PlaceOrder,
    products: Mapping[str, Product],
    stocks: Mapping[str, Sequence[OfferStock]],
    luck: random.Random,
) -> list[Pick]:
    """Serve every line, or raise Refusal (`ProductUnavailable`). `stocks` is by product."""
    taken: dict[str, Counter[str]] = {}
    picks: list[Pick] = []
    for line in order.lines:
        wholesale = is_wholesale(line, products)
        missing = line.qty
        for stock in _candidates(line, stocks[line.product_id]):
            before = taken.setdefault(stock.offer.offer_id, Counter())
            room = missing if wholesale else min(missing, MOST_PER_OFFER - before.total())
            pick = _pick(line, stock, before, room, luck)
            before.update(text=pick.text, image=pick.image, late=pick.late)
            missing -= pick.qty
            if pick.qty:
                picks.append(pick)
        if missing:
            detail = f'Product "{line.product_id}" is not available in the requested quantity, type and price.'
            raise Refusal("ProductUnavailable", REFUSED, detail)
    return picks


def _candidates(line: Line, stocks: Sequence[OfferStock]) -> list[OfferStock]:
    offered = [
        stock
        for stock in stocks
        if line.offer_id in (None, stock.offer.offer_id)
        and unit_price(stock.offer, stock.price, line.qty) <= line.price
    ]
    return sorted(offered, key=lambda stock: (stock.price, stock.offer.offer_id))


def _pick(line: Line, stock: OfferStock, before: Counter[str], room: int, luck: random.Random) -> Pick:
    text_left = stock.text - before["text"]
    image_left = 0 if line.key_type == "text" else stock.image - before["image"]
    late_left = stock.promised - before["late"]
    if line.key_type == "text" and not stock.text_qty:
        late_left = 0
    there = max(0, min(room, text_left + image_left))
    text = sum(luck.sample((1, 0), counts=(text_left, image_left), k=there)) if there else 0
    late = max(0, min(room - there, late_left))
    return Pick(line, stock.offer.offer_id, unit_price(stock.offer, stock.price, line.qty), text, there - text, late)
