"""kinguin-gateway: its real guard over rows in memory, and how fulfillment reaches it.

Between the two stands what `fulfillment.adapters.kinguin_grpc` does on the wire: errors become answers.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from chassis.errors import KeyferryError, ServiceUnavailable
from fulfillment.adapters.kinguin_grpc import not_placed
from fulfillment.domain.model import ExternalId, KeyId
from fulfillment.domain.planner import Known
from fulfillment.domain.product import Offer as OfferedTo
from fulfillment.domain.product import Product as ProductTo
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    CollectAnswer,
    Collected,
    InDoubt,
    NoAnswer,
    NoProduct,
    PlaceAnswer,
    Placed,
    ProductAnswer,
    Refused,
    ReturnAnswer,
    Returned,
    ReturnRefused,
    ReturnUnderWay,
    Unknown,
    WithdrawAnswer,
)
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.collecting import Collector
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import Intent, Purchase, PurchaseState, SupplierOrderState
from kinguin_gateway.domain.returning import KeyReturn, ReturnState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.looking import Watcher
from kinguin_gateway.returning import Returner
from kinguin_gateway.settling import Settler
from kinguin_gateway.withdrawing import Withdrawer

from tests.simulation.gateway_rows import GatewayDatabase, GatewayReturns, GatewayRows
from tests.simulation.supplier import BOUNDS, WINDOW, Account, SupplierLine
from tests.simulation.vault import SealingVault, VaultServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fulfillment.domain.model import OrderId
    from fulfillment.domain.model import Purchase as Wanted
    from kinguin_gateway.domain.purchase import Product
    from kinguin_gateway.ports.supplier import Supplier

    from tests.simulation.clock import Luck, WorldClock
    from tests.simulation.network import Host, Network, Process

PACE = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=300))
_ENDED = {SupplierOrderState.CANCELED, SupplierOrderState.REFUNDED}
_NOT_COLLECTED: dict[str, CollectAnswer] = {
    "PURCHASE_UNKNOWN": Unknown(),
    "PURCHASE_NOT_PLACED": Unknown(),
}
_UNDER_WAY = {ReturnState.ASKED, ReturnState.ACCEPTED}
_GONE_BACK = {ReturnState.RETURNED, ReturnState.REFUNDED}


class Gateway:
    """One replica: what it serves, and its loops."""

    def __init__(
        self,
        process: Process,
        *,
        database: GatewayDatabase,
        account: Account,
        clock: WorldClock,
        luck: Luck,
        network: Network,
        vaults: Host[VaultServer],
    ) -> None:
        self.process = process
        self._database = database
        self._clock = clock
        self._luck = luck
        rows, returns = GatewayRows(database, process), GatewayReturns(database, process)
        # What lists, and what reads the balance, is asked by nobody here.
        supplier = cast("Supplier", SupplierLine(account, process))
        self._account = account
        self.rows, self.supplier = rows, supplier
        self.settler = Settler(rows, supplier, bounds=BOUNDS, pace=PACE, chance=luck.random)
        self.buyer = Buyer(rows, supplier, self.settler, Checker(supplier, clock), clock=clock, window=WINDOW)
        self.withdrawer = Withdrawer(rows, self.settler, window=WINDOW)
        self.collector = Collector(rows, supplier, SealingVault(network, vaults, process))
        self.returner = Returner(
            rows, returns, supplier, self.settler, pace=PACE, call_limit=WINDOW, chance=luck.random
        )
        self.watcher = Watcher(rows, supplier, self.settler, pace=PACE, call_limit=WINDOW, chance=luck.random)

    async def run(self) -> None:
        """Look at what is due: doubts, placed orders, returns, and what waits for buying to go on."""
        while True:
            due = self._database.next_due()
            now = self._clock.now()
            wait = None if due is None else max((due - now).total_seconds(), 0.0) + self._luck.upto(0.3)
            await self._database.news.wait(wait)
            with suppress(KeyferryError):
                await self._work()

    async def _work(self) -> None:
        now, database = self._clock.now(), self._database
        if database.next_look() <= now:
            for due in await self.watcher.claim(10):
                await self.watcher.look(due)
        if database.next_verification() <= now:
            for due in await self.settler.claim_to_verify(10):
                await self.settler.verify(due)
        if database.next_return() <= now:
            for each in await self.returner.claim(10):
                await self.returner.handle(each)
        if database.cause is not PauseCause.NONE and database.release_time <= now:
            database.release_time = now + timedelta(seconds=10)
            self._account.out_of_money = self._account.out_of_money and not self._process_is_calm()
            if not self._account.out_of_money:
                await self.rows.release(10, balance_cents=10**9)
                database.tell_released()

    def _process_is_calm(self) -> bool:
        return self.process.sky.is_clear or self._luck.chance(0.5)


class KinguinLine:
    """kinguin-gateway as a process of fulfillment reaches it: `fulfillment.ports.supplier.Supplier`."""

    def __init__(self, network: Network, host: Host[Gateway], process: Process, database: GatewayDatabase) -> None:
        self._network, self._host, self._process, self._database = network, host, process, database

    async def place(self, buying: Buying) -> PlaceAnswer:
        assert buying.purchase.unit_limit is not None, "placed before it was planned"
        intent, name = _intent(buying, buying.purchase.unit_limit), _request_id("place", buying.purchase.external_id)

        async def ask(gateway: Gateway) -> Purchase:
            return await gateway.buyer.place(intent, name, buying.country_code)

        try:
            return _placed(await self._network.call(self._process, self._host, ask))
        except KeyferryError as error:
            return not_placed(error)

    async def collect(self, buying: Buying) -> CollectAnswer:
        external_id = buying.purchase.external_id
        name = _request_id("collect", external_id)

        async def ask(gateway: Gateway) -> Any:
            return await gateway.collector.collect(
                external_id, customer_id=buying.customer_id, request_id=name, digest=b""
            )

        try:
            found = await self._network.call(self._process, self._host, ask)
        except KeyferryError as error:
            return _NOT_COLLECTED.get(error.reason, NoAnswer())
        return Collected(
            keys=[ArrivedKey(KeyId(key.key_id), key.content_type, key.held) for key in found.keys],
            product_name=found.purchase.product_name,
            more_ready=found.more_keys_ready,
            ended=found.purchase.supplier_order_state in _ENDED
            and found.purchase.sealed_count >= found.purchase.delivered_count,
            unreadable=len(found.unreadable),
        )

    async def withdraw(self, buying: Buying) -> WithdrawAnswer:
        purchase, item = buying.purchase, buying.item
        intent = _intent(buying, item.max_unit_price if purchase.unit_limit is None else purchase.unit_limit)
        name = _request_id("withdraw", purchase.external_id)

        async def ask(gateway: Gateway) -> Purchase:
            return await gateway.withdrawer.withdraw(intent, name)

        try:
            settled = await self._network.call(self._process, self._host, ask)
        except KeyferryError as error:
            return InDoubt(error.retry_after) if error.reason == "PURCHASE_IN_DOUBT" else NoAnswer()
        return _placed(settled) if settled.state is PurchaseState.PLACED else Refused(settled.refusal.kind)

    async def give_back(self, purchase: Wanted) -> ReturnAnswer:
        external_id, name = purchase.external_id, _request_id("return", purchase.external_id)

        async def ask(gateway: Gateway) -> KeyReturn:
            return await gateway.returner.give_back(external_id, "", name)

        try:
            found = await self._network.call(self._process, self._host, ask)
        except KeyferryError as error:
            excluded = error.reason == "RETURN_NOT_ALLOWED"
            return ReturnRefused(error.metadata.get("rule", "")) if excluded else NoAnswer()
        if found.state in _UNDER_WAY:
            return ReturnUnderWay()
        return Returned() if found.state in _GONE_BACK else ReturnRefused(found.refusal.kind)

    async def give_back_surplus(self, external_id: str, supplier_order_id: str) -> bool:
        """Ask for the return of an order that was bought too much, as reconciliation does."""

        async def ask(gateway: Gateway) -> KeyReturn:
            return await gateway.returner.give_back(external_id, supplier_order_id, f"surplus/{supplier_order_id}")

        return (await self._network.call(self._process, self._host, ask)).state is not ReturnState.REFUSED

    async def read_product(self, product_id: str) -> ProductAnswer:
        async def ask(gateway: Gateway) -> Product | None:
            return await gateway.supplier.read_product(product_id)

        try:
            product = await self._network.call(self._process, self._host, ask)
        except (KeyferryError, ServiceUnavailable):
            return NoAnswer()
        return NoProduct() if product is None else _product(product)

    async def known_purchases(self, order_id: OrderId) -> Sequence[tuple[str, Known]] | None:
        async def ask(gateway: Gateway) -> Sequence[Purchase]:
            return gateway.rows.of_order(order_id)

        try:
            found = await self._network.call(self._process, self._host, ask)
        except KeyferryError:
            return None
        return [(each.intent.item_id, _known(each)) for each in found]


def _intent(buying: Buying, limit: int) -> Intent:
    purchase, item = buying.purchase, buying.item
    return Intent(
        external_id=purchase.external_id,
        order_id=purchase.order_id,
        item_id=purchase.item_id,
        product_id=item.product_id,
        offer_id=purchase.offer_id,
        quantity=purchase.quantity,
        max_unit_cents=limit,
        key_type=item.key_type,
    )


def _placed(purchase: Purchase) -> Placed:
    return Placed(purchase.supplier_order_id, purchase.product_name, purchase.charged_cents)


def _known(purchase: Purchase) -> Known:
    intent = purchase.intent
    refused = purchase.state is PurchaseState.REFUSED
    return Known(ExternalId(intent.external_id), intent.quantity, intent.offer_id, intent.max_unit_cents, refused)


def _product(product: Product) -> ProductTo:
    offers = [
        OfferedTo(each.offer_id, each.price_cents, each.available, each.available_text) for each in product.offers
    ]
    return ProductTo(
        product_id=product.product_id,
        name=product.name,
        preorder=product.preorder,
        release_time=product.release_time,
        excluded_countries=frozenset(product.excluded_countries),
        offers=offers,
        price=product.price_cents,
        available=product.available,
        available_text=product.available,
    )


def _request_id(what: str, external_id: str) -> str:
    return f"{what}/{external_id}"
