"""The customer's pages: the list of orders, one order, and showing a key without a script."""

from typing import Annotated
from urllib.parse import urlencode

from chassis.errors import KeyferryError
from fastapi import APIRouter, Form, Path, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway import problem
from gateway.auth.gate import PageSession, check_csrf, count, customer_of
from gateway.auth.session import Session
from gateway.domain.order import Order
from gateway.edge import Edge, edge_of
from gateway.headers import content_security_policy
from gateway.reveal import OpenedKey, reveal
from gateway.schema import IDENTIFIER, PAGE_CURSOR, order_list_model, order_model

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

ORDERS_PER_PAGE = 20
_FAILURES: dict[str | int, str] = {
    "KEY_CORRUPTED": "What we stored of this key was damaged, so we did not open it. A person is looking at it.",
    "KEY_REVOKED": "This key was taken back and cannot be opened any more. Your order says what became of it.",
    "KEY_EXPIRED": "This key is not kept any more: the time for which we keep keys has passed.",
    429: "That was too many tries in a short time. Your key is safe; please try again later.",
    404: "This key is not available. Reload the page to see what has changed.",
    503: "Keys cannot be opened right now: a part of our system is down. Your key is safe; please try again soon.",
}
_FAILURE = "The key could not be opened. It is safe, and the fault was recorded; please try again later."

OrderId = Annotated[str, Path(max_length=64, pattern=IDENTIFIER)]
KeyId = Annotated[str, Path(max_length=64, pattern=IDENTIFIER)]


@router.get("/")
async def show_orders(
    request: Request, session: PageSession, page_token: Annotated[str, Query(max_length=1024, pattern=PAGE_CURSOR)] = ""
) -> Response:
    """Show the reader's orders, newest first."""
    edge = edge_of(request)
    customer = customer_of(request, session.principal)
    found = await edge.fulfillments.list(customer, page_size=ORDERS_PER_PAGE, page_token=page_token)
    page = order_list_model(found)
    next_url = "/?" + urlencode({"page_token": page.next_page_token}) if page.next_page_token else ""
    return edge.pages.page(
        "orders.html", session=session, orders=page.orders, next_url=next_url, later_page=bool(page_token)
    )


@router.get("/orders/{order_id}")
async def show_order(request: Request, order_id: OrderId, session: PageSession) -> Response:
    """Show one order. Reading never opens a key."""
    edge = edge_of(request)
    order = await edge.fulfillments.get(order_id, customer_of(request, session.principal))
    return _order_page(edge, session, order)


@router.get("/orders/{order_id}/keys/{key_id}")
async def leave_key(request: Request, order_id: OrderId, key_id: KeyId) -> Response:  # noqa: ARG001 # of the address
    """Lead back to the order: this address only opens a key for a form of the order's page."""
    return RedirectResponse(request.url.path.rpartition("/keys/")[0], 303)


@router.post("/orders/{order_id}/keys/{key_id}")
async def show_key(
    request: Request, order_id: OrderId, key_id: KeyId, session: PageSession, csrf_token: Annotated[str, Form()] = ""
) -> Response:
    """Open one key here and show it in this one answer: the way for browsers without scripts."""
    edge = edge_of(request)
    check_csrf(request, session, csrf_token)
    await count(request, "open_key", session.principal.subject)
    customer = customer_of(request, session.principal)
    order = await edge.fulfillments.get(order_id, customer)
    try:
        opened = await reveal(edge.fulfillments, order_id, key_id, customer)
    except KeyferryError as error:
        problem.record(error)
        status = problem.status_of(error)
        sentence = _FAILURES.get(error.reason) or _FAILURES.get(status, _FAILURE)
        failed = OpenedKey(key_id, failure=sentence)
        return _order_page(edge, session, order, opened=failed, status=status)
    return _order_page(edge, session, order, opened=opened)


def _order_page(
    edge: Edge, session: Session, order: Order, *, opened: OpenedKey | None = None, status: int = 200
) -> HTMLResponse:
    response = edge.pages.page("order.html", session=session, order=order_model(order), opened=opened, status=status)
    if opened and opened.picture_url:
        response.headers["content-security-policy"] = content_security_policy(edge.object_origin, inline_pictures=True)
    return response
