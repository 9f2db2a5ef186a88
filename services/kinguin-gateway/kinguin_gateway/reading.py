"""Reads from the supplier on behalf of others. Nothing here changes anything."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from chassis.clock import Clock

from kinguin_gateway.breaker import Breaker
from kinguin_gateway.domain.purchase import Product, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.domain.switching import BuyingStatus
from kinguin_gateway.errors import ProductUnknown, PurchaseUnknown
from kinguin_gateway.ports.purchases import SealedKeys
from kinguin_gateway.ports.supplier import OrderFilter, Supplier, SupplierHealth
from kinguin_gateway.ports.switch import Switch
from kinguin_gateway.ports.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Check:
    """The supplier's health, how long its answer took, and whether we buy."""

    health: SupplierHealth
    latency: timedelta
    buying: BuyingStatus
    breaker_open: bool = False
    last_webhook_time: datetime | None = None


class Reader:
    """Answers questions about purchases, products and the supplier itself."""

    def __init__(
        self,
        purchases: SealedKeys,
        supplier: Supplier,
        switch: Switch,
        webhooks: Webhooks,
        breaker: Breaker,
        *,
        clock: Clock,
    ) -> None:
        self._purchases = purchases
        self._supplier = supplier
        self._switch = switch
        self._webhooks = webhooks
        self._breaker = breaker
        self._clock = clock

    async def purchase(self, external_id: str) -> Purchase:
        """Return a purchase, with its order as the supplier shows it now. Raises PurchaseUnknown."""
        purchase = await self._purchases.find(external_id)
        if purchase is None:
            raise PurchaseUnknown("no purchase was ever asked for under this external id")
        if purchase.state is not PurchaseState.PLACED:
            return purchase
        order = await self._supplier.read_order(purchase.supplier_order_id)
        if order is None:
            return purchase
        charged = purchase.charged_cents if order.charged_cents is None else order.charged_cents
        return replace(
            purchase,
            supplier_order_state=order.state,
            charged_cents=charged,
            product_name=order.product_name or purchase.product_name,
        )

    async def product(self, product_id: str) -> Product:
        """Return a product as it is sold now. Raises ProductUnknown."""
        product = await self._supplier.read_product(product_id)
        if product is None:
            raise ProductUnknown("the supplier does not know or sell this product", metadata={"product_id": product_id})
        return product

    async def orders(self, wanted: OrderFilter) -> AsyncIterator[SupplierOrder]:
        """Yield the supplier's orders that match, the newest first."""
        async with aclosing(self._supplier.search_orders(wanted)) as pages:
            async for page in pages:
                for order in page:
                    yield order

    async def check(self) -> Check:
        """Ask the supplier whether it is there and lets us in."""
        began = self._clock.elapsed()
        health = await self._supplier.check()
        return Check(
            health,
            timedelta(seconds=self._clock.elapsed() - began),
            buying=await self._switch.status(),
            breaker_open=self._breaker.is_open,
            last_webhook_time=await self._webhooks.last_time(),
        )
