"""The customer API: orders, their progress as a stream, and the two ways to open a key."""

import uuid
from typing import Annotated

from chassis.errors import InvalidRequest
from fastapi import APIRouter, Header, Path, Query
from starlette.requests import Request
from starlette.responses import StreamingResponse

from gateway.auth.gate import ApiCustomer, count
from gateway.domain.order import Customer, KeyRequest
from gateway.domain.recipient import BadRecipient
from gateway.edge import edge_of
from gateway.schema import (
    IDENTIFIER,
    PAGE_CURSOR,
    DownloadLinkModel,
    OrderListModel,
    OrderModel,
    RecipientRequest,
    RevealedKeyModel,
    download_link_model,
    order_list_model,
    order_model,
    problems,
)
from gateway.sse import EVENT_SCHEMA, MEDIA_TYPE, begin_stream

router = APIRouter(prefix="/v1/orders", tags=["orders"])

OrderId = Annotated[str, Path(max_length=64, pattern=IDENTIFIER, description="The shop's order number.")]
KeyId = Annotated[str, Path(max_length=64, pattern=IDENTIFIER, description="One of the order's keys.")]
PageToken = Annotated[
    str, Query(max_length=1024, pattern=PAGE_CURSOR, description="next_page_token of the page before.")
]
IdempotencyKey = Annotated[
    uuid.UUID | None,
    Header(
        alias="Idempotency-Key",
        description="UUID of this request. Repeat the request with the same one after an answer was lost.",
    ),
]


@router.get(
    "",
    summary="List my orders",
    response_description="Some orders, newest first.",
    responses=problems(400, 401, 429, 504),
)
async def list_orders(
    request: Request,
    customer: ApiCustomer,
    page_size: Annotated[int, Query(ge=1, le=100)] = 20,
    page_token: PageToken = "",
) -> OrderListModel:
    """Return the customer's orders, newest first."""
    page = await edge_of(request).fulfillments.list(customer, page_size=page_size, page_token=page_token)
    return order_list_model(page)


@router.get(
    "/{order_id}",
    summary="Read an order",
    response_description="The order.",
    responses=problems(400, 401, 404, 429, 504),
)
async def get_order(request: Request, order_id: OrderId, customer: ApiCustomer) -> OrderModel:
    """Return one order with its progress in plain words and the keys that can be opened."""
    return order_model(await edge_of(request).fulfillments.get(order_id, customer))


@router.get(
    "/{order_id}/events",
    summary="Follow an order",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events. order carries the order as in Read an order, first the present one; "
            "problem an error after which the stream ends; end comes once nothing can change any more.",
            # Named as OpenAPI 3.2 does: what an event is, not the stream.
            "content": {MEDIA_TYPE: {"itemSchema": EVENT_SCHEMA}},
        },
        **problems(400, 401, 404, 429, 504),
    },
)
async def follow_order(request: Request, order_id: OrderId, customer: ApiCustomer) -> StreamingResponse:
    """Stream the order whenever it changes. The stream ends after some minutes; connect again to go on."""
    return await begin_stream(edge_of(request), order_id, customer, str(request.scope["request_id"]))


@router.post(
    "/{order_id}/keys/{key_id}/download-link",
    summary="Get a download link",
    response_description="The link.",
    responses=problems(400, 401, 403, 404, 408, 409, 413, 429, 504),
)
async def create_download_link(
    request: Request,
    order_id: OrderId,
    key_id: KeyId,
    body: RecipientRequest,
    customer: ApiCustomer,
    *,
    idempotency_key: IdempotencyKey = None,
) -> DownloadLinkModel:
    """Return a link to the sealed key for 15 minutes, and its content key for the holder of the one-time private key.

    The link, the object store and this answer are useless without that private key. Written to the audit log first.
    """
    await count(request, "open_key", customer.customer_id)
    wish = _key_request(order_id, key_id, customer, body, idempotency_key)
    return download_link_model(await edge_of(request).fulfillments.create_download_link(wish))


@router.post(
    "/{order_id}/keys/{key_id}/reveal",
    summary="Open a key",
    response_description="The key.",
    responses=problems(400, 401, 403, 404, 408, 409, 413, 429, 504),
)
async def reveal_key(
    request: Request,
    order_id: OrderId,
    key_id: KeyId,
    body: RecipientRequest,
    customer: ApiCustomer,
    *,
    idempotency_key: IdempotencyKey = None,
) -> RevealedKeyModel:
    """Return the opened key, encrypted to the one-time public key, for callers that do not fetch the ciphertext."""
    await count(request, "open_key", customer.customer_id)
    wish = _key_request(order_id, key_id, customer, body, idempotency_key)
    return RevealedKeyModel(key_jwe=await edge_of(request).fulfillments.reveal_key(wish))


def _key_request(
    order_id: str, key_id: str, customer: Customer, body: RecipientRequest, idempotency_key: uuid.UUID | None
) -> KeyRequest:
    try:
        recipient = body.recipient()
    except BadRecipient as fault:
        raise InvalidRequest.of(fault.field, fault.description) from None
    return KeyRequest(str(idempotency_key or uuid.uuid4()), order_id, key_id, customer, recipient)
