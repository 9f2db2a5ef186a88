"""What webhooks say (K54, K55, K61): bodies and headers as the contract has them, and lies about them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sandbox.kinguin import serials
from sandbox.kinguin.moments import exact_moment
from sandbox.kinguin.orders import Change

EventName = Literal["order.status", "order.complete", "product.update"]
Headers = dict[str, str]

_FORGED_SECRET = "not-the-secret-that-was-agreed"  # noqa: S105 # its being wrong is the point
# Both spellings are met in the wild (K54).
_CONTENT_TYPES = ("application/json", "aplication/json")
_FIRST_INVENTED_ID = 9_000_000


@dataclass(frozen=True, slots=True)
class Letter:
    """One webhook; `attempt` counts how often it failed already."""

    body: bytes
    headers: Headers
    attempt: int = 0

    def again(self) -> "Letter":
        """Return the same webhook for its next attempt."""
        return Letter(self.body, self.headers, self.attempt + 1)


class Writer:
    """Writes webhooks with the shop's secret. Only the spelling of the content type changes from one to the next."""

    def __init__(self, secret: str, *, seed: int) -> None:
        self._secret = secret
        self._seed = seed
        self._written = self._invented = 0

    def status(self, change: Change) -> Letter:
        """Write `order.status`."""
        return self._letter("order.status", _status_body(change), self._secret)

    def complete(self, change: Change) -> Letter:
        """Write `order.complete`, as older stores send it: no status, it says it all."""
        body = _status_body(change)
        del body["status"]
        return self._letter("order.complete", body, self._secret)

    def forgery(self, change: Change) -> Letter:
        """Write what somebody might who knows of an order, but not the secret: that it was refunded."""
        lie = Change(change.order_id, change.external_id, "refunded", change.updated_at)
        return self._letter("order.status", _status_body(lie), _FORGED_SECRET)

    def probe(self) -> Letter:
        """Write what the dashboard's TEST URL button sends (K60)."""
        return self.status(Change("TEST", "TEST", "completed", 0))

    def product(self, product: Mapping[str, object], updated_at: float) -> Letter:
        """Write `product.update` about a product as the API shows it."""
        told = ("kinguinId", "productId", "qty", "textQty", "cheapestOfferId")
        body = {**{name: product[name] for name in told}, "updatedAt": exact_moment(updated_at)}
        return self._letter("product.update", body, self._secret)

    def invented_product(self, updated_at: float) -> Letter:
        """Write `product.update` about the next of the many products that this shop never sold."""
        self._invented += 1
        name = serials.invented_product(self._seed, self._invented)
        stock = self._invented % 100
        return self.product(
            {
                "kinguinId": _FIRST_INVENTED_ID + self._invented,
                "productId": name,
                "qty": stock,
                "textQty": stock,
                "cheapestOfferId": [name[::-1]] if stock else [],
            },
            updated_at,
        )

    def _letter(self, event: EventName, body: Mapping[str, object], secret: str) -> Letter:
        self._written += 1
        content_type = _CONTENT_TYPES[self._written % len(_CONTENT_TYPES)]
        headers = {"X-Event-Name": event, "X-Event-Secret": secret, "Content-Type": content_type}
        return Letter(json.dumps(body).encode(), headers)


def _status_body(change: Change) -> dict[str, object]:
    body: dict[str, object] = {
        "orderId": change.order_id,
        "status": change.status,
        "updatedAt": exact_moment(change.updated_at),
    }
    if change.external_id is not None:
        body["orderExternalId"] = change.external_id
    return body
