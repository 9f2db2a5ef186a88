"""The books of kinguin-gateway, the supplier and vault over gRPC, page by page."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog
from chassis.errors import KeyferryError, ServiceUnavailable
from google.protobuf.message import Message
from keyferry.kinguin.v1 import kinguin_service_pb2 as kinguin_pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub
from keyferry.vault.v1 import vault_service_pb2 as vault_pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from fulfillment.domain.reconciliation import Range
from fulfillment.facts import timestamp
from fulfillment.ports.reconciliation import TheirBalance, TheirKey, TheirOrder, TheirPurchase, TheirTopUp

logger = structlog.get_logger(__name__)

PAGE = 1000
# A thousand rows of another service; the supplier's own list may wait for its pace.
PAGE_SECONDS = 30.0
LOOK_SECONDS = 30.0
# A day's worth of orders at a hundred to a page and a page a second; each answer is waited for by itself.
STREAM_SECONDS = 3000.0
ANSWER_SECONDS = 60.0
# Far above what a range of 31 days can hold: a listing that never ends is a mistake of the other side.
MOST_PAGES = 100_000

_NAMESPACE = uuid.UUID("0d1d9c0a-6c1b-4d0e-9b5f-2f6c1f0e7a55")
_UNKNOWN = frozenset({"PURCHASE_UNKNOWN", "PURCHASE_NOT_PLACED"})


class GrpcLedgers:
    """What others have written down, read for comparison."""

    def __init__(self, kinguin: grpc.aio.Channel, vault: grpc.aio.Channel) -> None:
        self._kinguin = KinguinServiceStub(kinguin)
        self._vault = VaultServiceStub(vault)

    async def purchases(self, span: Range) -> AsyncIterator[Sequence[TheirPurchase]]:
        """Give purchases first asked for in a range."""
        request = kinguin_pb.ListPurchasesRequest(page_size=PAGE, **_times(span))
        async for answer in _pages(self._kinguin.ListPurchases, request):
            yield [_purchase(each) for each in answer.purchases]

    async def supplier_orders(self, span: Range) -> AsyncIterator[Sequence[TheirOrder]]:
        """Give the supplier's own orders placed in a range."""
        async for batch in self._search(kinguin_pb.SearchOrdersRequest(**_times(span))):
            yield batch

    async def keys(self, span: Range) -> AsyncIterator[Sequence[TheirKey]]:
        """Give keys first asked to be sealed in a range."""
        request = vault_pb.ListKeysRequest(page_size=PAGE, **_times(span))
        async for answer in _pages(self._vault.ListKeys, request):
            yield [_key(each) for each in answer.keys]

    async def top_ups(self, span: Range) -> AsyncIterator[Sequence[TheirTopUp]]:
        """Give top-ups of a range."""
        request = kinguin_pb.ListTopUpsRequest(page_size=PAGE, **_times(span))
        async for answer in _pages(self._kinguin.ListTopUps, request):
            yield [
                TheirTopUp(each.top_up_id, each.amount.minor_units, each.top_up_time.ToDatetime(UTC))
                for each in answer.top_ups
            ]

    async def balance(self) -> TheirBalance | None:
        """Return the balance; None where the supplier does not tell it."""
        try:
            answer = await self._kinguin.GetBalance(kinguin_pb.GetBalanceRequest(), timeout=LOOK_SECONDS)
        except KeyferryError as error:
            logger.warning("balance could not be read", reason=error.reason)
            return None
        return TheirBalance(answer.balance.minor_units, answer.read_time.ToDatetime(UTC))

    async def purchase(self, external_id: str, order_id: str) -> TheirPurchase | None:
        """Look one purchase up: in the order's list where the order is known, which asks nobody else."""
        if order_id:
            request = kinguin_pb.ListPurchasesRequest(order_id=order_id, page_size=PAGE)
            async for answer in _pages(self._kinguin.ListPurchases, request):
                for each in answer.purchases:
                    if each.external_id == external_id:
                        return _purchase(each)
        try:
            found = await self._kinguin.GetOrder(
                kinguin_pb.GetOrderRequest(external_id=external_id), timeout=LOOK_SECONDS
            )
        except KeyferryError as error:
            if error.reason in _UNKNOWN:
                return None
            raise
        return _purchase(found.purchase)

    async def orders_like(self, external_id: str, supplier_order_id: str) -> Sequence[TheirOrder]:
        """Look the supplier's orders up that carry this reference, or this number."""
        request = kinguin_pb.SearchOrdersRequest(external_id=external_id)
        if supplier_order_id:
            request = kinguin_pb.SearchOrdersRequest(supplier_order_id=supplier_order_id)
        return [order async for batch in self._search(request) for order in batch]

    async def key(self, key_id: str) -> TheirKey | None:
        """Look one key up."""
        try:
            found = await self._vault.GetKey(vault_pb.GetKeyRequest(key_id=key_id), timeout=LOOK_SECONDS)
        except KeyferryError as error:
            if error.reason == "KEY_NOT_FOUND":
                return None
            raise
        return _key(found.key)

    async def give_back(self, external_id: str, supplier_order_id: str) -> bool:
        """Have an order that was bought too much returned."""
        request = kinguin_pb.ReturnKeysRequest(
            request_id=str(uuid.uuid5(_NAMESPACE, f"return/{supplier_order_id}")),
            external_id=external_id,
            supplier_order_id=supplier_order_id,
        )
        try:
            answer = await self._kinguin.ReturnKeys(request, timeout=LOOK_SECONDS)
        except KeyferryError as error:
            logger.error(  # noqa: TRY400 # the reason says it all
                "an order that was bought too much was not returned",
                external_id=external_id,
                supplier_order_id=supplier_order_id,
                reason=error.reason,
            )
            return False
        return answer.key_return.state != kinguin_pb.KEY_RETURN_STATE_REFUSED

    async def _search(self, request: kinguin_pb.SearchOrdersRequest) -> AsyncIterator[Sequence[TheirOrder]]:
        answers = aiter(self._kinguin.SearchOrders(request, timeout=STREAM_SECONDS))
        batch: list[TheirOrder] = []
        while (answer := await _next(answers)) is not None:
            batch.append(_order(answer.order))
            if len(batch) >= PAGE:
                yield batch
                batch = []
        yield batch


async def _next(answers: AsyncIterator[Any]) -> Any:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await anext(answers, None)
    except TimeoutError:
        raise ServiceUnavailable("the supplier's list stands still") from None


async def _pages(call: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
    for _ in range(MOST_PAGES):
        answer = await call(request, timeout=PAGE_SECONDS)
        yield answer
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
    raise ServiceUnavailable("a listing does not end")


def _times(span: Range) -> dict[str, Any]:
    return {"start_time": timestamp(span.start), "end_time": timestamp(span.end)}


def _moment(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    moment: datetime = getattr(message, field).ToDatetime(UTC)
    return moment


def _cents(message: Message, field: str) -> int | None:
    return getattr(message, field).minor_units if message.HasField(field) else None


def _word(names: Any, number: int, prefix: str) -> str:
    """Return the contract's word for a state without its prefix; empty for none."""
    return names.Name(number).removeprefix(prefix) if number in names.values() and number else ""


def _return_state(message: kinguin_pb.KeyReturn) -> str:
    return _word(kinguin_pb.KeyReturnState, message.state, "KEY_RETURN_STATE_")


def _purchase(message: kinguin_pb.Purchase) -> TheirPurchase:
    returns = {each.supplier_order_id: _return_state(each) for each in message.surplus_returns}
    return TheirPurchase(
        external_id=message.external_id,
        order_id=message.order_id,
        supplier_order_id=message.supplier_order_id,
        state=_word(kinguin_pb.PurchaseState, message.state, "PURCHASE_STATE_"),
        supplier_state=_order_state(message.supplier_order_state),
        quantity=message.quantity,
        charged=_cents(message, "charged_amount"),
        return_state=_return_state(message.key_return) if message.HasField("key_return") else "",
        create_time=message.create_time.ToDatetime(UTC),
        surplus={number: returns.get(number, "ASKED") for number in message.surplus_order_ids},
    )


def _order_state(number: int) -> str:
    return _word(kinguin_pb.SupplierOrderState, number, "SUPPLIER_ORDER_STATE_")


def _order(message: kinguin_pb.SupplierOrder) -> TheirOrder:
    return TheirOrder(
        supplier_order_id=message.supplier_order_id,
        external_id=message.external_id,
        state=_order_state(message.state),
        charged=_cents(message, "charged_amount"),
        refunded=_cents(message, "refunded_amount") or 0,
        create_time=_moment(message, "create_time"),
    )


def _key(message: vault_pb.SealedKey) -> TheirKey:
    return TheirKey(
        key_id=message.key_id,
        order_id=message.order_id,
        state=_word(vault_pb.State, message.state, "STATE_"),
        seal_time=_moment(message, "seal_time"),
        open_time=_moment(message, "open_time"),
    )
