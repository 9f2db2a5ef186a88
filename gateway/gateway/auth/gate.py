"""Lets requests in: FastAPI dependencies that say who the caller is, or refuse with the reason."""

import re
import secrets
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from gateway.auth.principal import Principal
from gateway.auth.session import COOKIE, Session
from gateway.domain.order import Customer
from gateway.edge import Edge, edge_of
from gateway.errors import CsrfRejected, LoginRequired, TokenInvalid

SAFE_METHODS = frozenset({"GET", "HEAD"})
CSRF_HEADER = "x-csrf-token"
MAXIMUM_USER_AGENT = 512
_COUNTRY = re.compile(r"[A-Z]{2}")


def address_of(request: Request) -> str:
    """Return the address a request came from, as the trusted proxies told it."""
    return request.client.host if request.client else ""


async def count(request: Request, policy: str, who: str) -> None:
    """Count the request against a limit and remember what is left for its answer. Raises RateLimited."""
    allowance = await edge_of(request).limiter.take(policy, who)
    request.scope["rate_limits"] = allowance.headers()
    allowance.check()


def session_of(request: Request) -> Session | None:
    """Return the browser's session, if it has a good one."""
    return edge_of(request).sessions.read(request.cookies.get(COOKIE))


def check_csrf(request: Request, session: Session, token: str | None) -> None:
    """Refuse a request that one of our own pages did not make. Raises CsrfRejected.

    Browsers write `null` as the origin of a form under our no-referrer policy; then Sec-Fetch-Site, which no page can
    forge, has to speak for it.
    """
    origin = request.headers.get("origin")
    if origin in (None, "null"):
        ours = request.headers.get("sec-fetch-site") == "same-origin"
    else:
        ours = origin == edge_of(request).origin
    if not ours:
        raise CsrfRejected("the request did not come from one of our pages")
    if not secrets.compare_digest((token or "").encode(), session.csrf_token.encode()):
        raise CsrfRejected("the request carries no valid CSRF token")


async def api_customer(request: Request) -> Customer:
    """Return the customer behind a bearer token, or behind a session with its CSRF proof.

    Raises LoginRequired, TokenInvalid, CsrfRejected, RateLimited or IssuerUnavailable.
    """
    edge = edge_of(request)
    await count(request, "address", address_of(request))
    if "authorization" in request.headers:
        principal = await _bearer(edge, request)
    else:
        session = session_of(request)
        if session is None:
            raise LoginRequired("send a bearer token, or log in")
        if request.method not in SAFE_METHODS:
            check_csrf(request, session, request.headers.get(CSRF_HEADER))
        principal = session.principal
    await count(request, "customer", principal.subject)
    return customer_of(request, principal)


async def page_session(request: Request) -> Session:
    """Return the reader's session. Raises RateLimited, or LoginRequired, which sends a browser to the login."""
    await count(request, "address", address_of(request))
    session = session_of(request)
    if session is None:
        raise LoginRequired("log in to see this page")
    await count(request, "customer", session.principal.subject)
    return session


def customer_of(request: Request, principal: Principal) -> Customer:
    """Return the customer as fulfillment, vault and audit are told."""
    return Customer(
        customer_id=principal.subject,
        email=principal.email,
        ip_address=address_of(request),
        user_agent=request.headers.get("user-agent", "")[:MAXIMUM_USER_AGENT],
        country_code=_country_of(request),
    )


def _country_of(request: Request) -> str:
    """Return the country that the proxy in front tells, or nothing where it knows none."""
    header = edge_of(request).country_header
    told = request.headers.get(header, "") if header else ""
    # Cloudflare writes XX for an unknown country and T1 for Tor, which is in none.
    return told if _COUNTRY.fullmatch(told) and told != "XX" else ""


async def _bearer(edge: Edge, request: Request) -> Principal:
    try:
        claims = await edge.verifier.verify_access_token(
            _token(request), audience=edge.audience, now=edge.clock.now().timestamp()
        )
    except TokenInvalid:
        edge.teller.refused("token.refused", address_of(request))
        raise
    return Principal.from_claims(claims)


def _token(request: Request) -> str:
    values = request.headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ")
    if len(values) != 1 or scheme.lower() != "bearer" or not token:
        raise TokenInvalid("the Authorization header must read Bearer and one token")
    return token


ApiCustomer = Annotated[Customer, Depends(api_customer)]
PageSession = Annotated[Session, Depends(page_session)]
