"""Logging in and out."""

import re
from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.auth.cookies import drop_cookie, put_cookie
from gateway.auth.gate import address_of, check_csrf, count, customer_of, session_of
from gateway.auth.login import FLOW_COOKIE, FLOW_SECONDS
from gateway.auth.session import COOKIE
from gateway.edge import edge_of
from gateway.errors import LoginFailed

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# A path of ours and nothing else: `//host` and `/\host` are other sites to a browser.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1023}")


@router.get("/login")
async def log_in(request: Request, next: Annotated[str, Query(max_length=1024)] = "/") -> Response:  # noqa: A002 # the parameter's usual name
    """Send the browser to the issuer, to come back to `next`."""
    await count(request, "address", address_of(request))
    edge = edge_of(request)
    next_path = next if _OWN_PATH.fullmatch(next) else "/"
    if session_of(request) is not None:
        return RedirectResponse(next_path, 303)
    url, flow = await edge.login.begin(next_path)
    response = RedirectResponse(url, 303)
    put_cookie(response, FLOW_COOKIE, flow, seconds=FLOW_SECONDS)
    return response


@router.get("/callback")
async def come_back(request: Request) -> Response:
    """Take the issuer's answer and begin a session."""
    await count(request, "address", address_of(request))
    edge = edge_of(request)
    try:
        principal, next_path = await edge.login.finish(request.cookies.get(FLOW_COOKIE), dict(request.query_params))
    except LoginFailed:
        edge.teller.refused("login.refused", address_of(request))
        raise
    session, cookie = edge.sessions.begin(principal)
    await edge.teller.session_started(session, customer_of(request, principal))
    response = RedirectResponse(next_path, 303)
    put_cookie(response, COOKIE, cookie, seconds=edge.sessions.lifetime_seconds)
    drop_cookie(response, FLOW_COOKIE)
    return response


@router.get("/logout")
async def offer_log_out(request: Request) -> Response:
    """Ask before logging out: a link alone must not do it."""
    pages = edge_of(request).pages
    session = session_of(request)
    if session is None:
        return pages.notice(
            title="You are logged out",
            sentence="Your keys are locked until you log in again.",
            action_url="/login",
            action="Log in",
        )
    return pages.notice(
        title="Log out?",
        sentence="Your keys stay where they are, locked, until you log in again.",
        form_url="/logout",
        action="Log out",
        session=session,
    )


@router.post("/logout")
async def log_out(request: Request, csrf_token: Annotated[str, Form()] = "") -> Response:
    """End the session, also for copies of its cookie."""
    edge = edge_of(request)
    session = session_of(request)
    if session is not None:
        check_csrf(request, session, csrf_token)
        edge.sessions.end(session)
        await edge.teller.session_ended(session, customer_of(request, session.principal))
    response = RedirectResponse("/logout", 303)
    drop_cookie(response, COOKIE)
    return response
