"""Fulfillment's neighbours for its tests: kinguin-gateway and vault that count, and the errors that they may raise."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from chassis.errors import RemoteError
from fulfillment.facts import timestamp
from keyferry.kinguin.v1 import kinguin_service_pb2 as kinguin_pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceServicer
from keyferry.type.v1 import money_pb2
from keyferry.vault.v1 import vault_service_pb2 as vault_pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceServicer

UNKNOWN_PRODUCT = "product-unknown"
PLENTY = 1000


def unavailable() -> RemoteError:
    return RemoteError("not now", code=grpc.StatusCode.UNAVAILABLE, reason="SUPPLIER_UNAVAILABLE")


def paused(seconds: float) -> RemoteError:
    wait = timedelta(seconds=seconds)
    code = grpc.StatusCode.FAILED_PRECONDITION
    return RemoteError("nobody buys", code=code, reason="BUYING_PAUSED", retry_after=wait)


def in_doubt(seconds: float | None = None) -> RemoteError:
    wait = None if seconds is None else timedelta(seconds=seconds)
    return RemoteError("nobody knows", code=grpc.StatusCode.ABORTED, reason="PURCHASE_IN_DOUBT", retry_after=wait)


def failed(reason: str, **metadata: str) -> RemoteError:
    return RemoteError("no", code=grpc.StatusCode.FAILED_PRECONDITION, reason=reason, metadata=metadata)


@dataclass
class CountingKinguin(KinguinServiceServicer):
    """Sells each purchase once and delivers it, unless it is paused. What is queued is answered first.

    `seconds` is how long each answer takes. There is one offer of every product, and plenty of it.
    """

    sold: dict[str, kinguin_pb.PlaceOrderRequest] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    reading: list[Exception] = field(default_factory=list)
    placing: list[Exception] = field(default_factory=list)
    collecting: list[Exception] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    is_paused: bool = False
    withheld: int = 0
    held: int = 0
    unreadable: int = 0
    state: kinguin_pb.SupplierOrderState.ValueType = kinguin_pb.SUPPLIER_ORDER_STATE_COMPLETED

    async def PlaceOrder(  # noqa: N802 # the name in the contract
        self, request: kinguin_pb.PlaceOrderRequest, _context: Any
    ) -> kinguin_pb.PlaceOrderResponse:
        self.asked[request.external_id] += 1
        await asyncio.sleep(self.seconds)
        if self.placing:
            raise self.placing.pop(0)
        if self.is_paused:
            raise paused(seconds=3600)
        assert self.sold.setdefault(request.external_id, request) == request
        return kinguin_pb.PlaceOrderResponse(purchase=self._purchase(request))

    async def CollectKeys(  # noqa: N802 # the name in the contract
        self, request: kinguin_pb.CollectKeysRequest, _context: Any
    ) -> kinguin_pb.CollectKeysResponse:
        await asyncio.sleep(self.seconds)
        if self.collecting:
            raise self.collecting.pop(0)
        bought = self.sold[request.external_id]
        self.customers[request.external_id] = request.customer_id
        keys = [
            kinguin_pb.KeyRef(key_id=f"{bought.external_id}-{no}", content_type="text/plain", held=no < self.held)
            for no in range(bought.quantity - self.withheld)
        ]
        return kinguin_pb.CollectKeysResponse(
            purchase=self._purchase(bought), keys=keys, unreadable_count=self.unreadable
        )

    async def GetProduct(  # noqa: N802 # the name in the contract
        self, request: kinguin_pb.GetProductRequest, _context: Any
    ) -> kinguin_pb.GetProductResponse:
        if self.reading:
            raise self.reading.pop(0)
        if request.product_id == UNKNOWN_PRODUCT:
            raise RemoteError("none", code=grpc.StatusCode.NOT_FOUND, reason="PRODUCT_UNKNOWN")
        stock: dict[str, Any] = {
            "price": money_pb2.Money(currency_code="EUR", minor_units=749),
            "available_quantity": PLENTY,
            "available_text_quantity": PLENTY,
        }
        offer = kinguin_pb.Offer(offer_id="offer-1", **stock)
        product = kinguin_pb.Product(product_id=request.product_id, name="Lantern Hollow", offers=[offer], **stock)
        return kinguin_pb.GetProductResponse(product=product)

    async def ListPurchases(  # noqa: N802 # the name in the contract
        self, request: kinguin_pb.ListPurchasesRequest, _context: Any
    ) -> kinguin_pb.ListPurchasesResponse:
        return kinguin_pb.ListPurchasesResponse(
            purchases=[self._purchase(each) for each in self.sold.values() if each.order_id == request.order_id]
        )

    def _purchase(self, bought: kinguin_pb.PlaceOrderRequest) -> kinguin_pb.Purchase:
        return kinguin_pb.Purchase(
            external_id=bought.external_id,
            order_id=bought.order_id,
            item_id=bought.item_id,
            product_id=bought.product_id,
            offer_id=bought.offer_id,
            max_unit_price=bought.max_unit_price,
            supplier_order_id=f"PHS-{bought.external_id[-6:]}",
            state=kinguin_pb.PURCHASE_STATE_PLACED,
            supplier_order_state=self.state,
            quantity=bought.quantity,
            product_name="Lantern Hollow",
            charged_amount=money_pb2.Money(currency_code="EUR", minor_units=749),
        )


@dataclass
class CountingVault(VaultServiceServicer):
    """Opens every key it is asked for."""

    links: list[vault_pb.CreateDownloadLinkRequest] = field(default_factory=list)
    reveals: list[vault_pb.RevealKeyRequest] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)
    erasures: list[vault_pb.EraseCustomerRequest] = field(default_factory=list)

    async def EraseCustomer(  # noqa: N802 # the name in the contract
        self, request: vault_pb.EraseCustomerRequest, _context: Any
    ) -> vault_pb.EraseCustomerResponse:
        if self.failing:
            raise self.failing.pop(0)
        self.erasures.append(request)
        return vault_pb.EraseCustomerResponse(shredded_count=1)

    async def CreateDownloadLink(  # noqa: N802 # the name in the contract
        self, request: vault_pb.CreateDownloadLinkRequest, _context: Any
    ) -> vault_pb.CreateDownloadLinkResponse:
        if self.failing:
            raise self.failing.pop(0)
        self.links.append(request)
        return vault_pb.CreateDownloadLinkResponse(
            url="https://r2.example/keys/1?signed",
            expire_time=timestamp(datetime(2026, 1, 2, tzinfo=UTC)),
            content_key_jwe="content.key.jwe",
            object_sha256=bytes(32),
        )

    async def RevealKey(  # noqa: N802 # the name in the contract
        self, request: vault_pb.RevealKeyRequest, _context: Any
    ) -> vault_pb.RevealKeyResponse:
        if self.failing:
            raise self.failing.pop(0)
        self.reveals.append(request)
        return vault_pb.RevealKeyResponse(key_jwe="key.jwe")
