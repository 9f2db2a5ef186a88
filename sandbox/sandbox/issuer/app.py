"""The issuer's endpoints (OIDC Core, Discovery, RP-Initiated Logout)."""

import base64
import binascii
import time
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit

from joserfc.errors import JoseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.issuer.accounts import ACCOUNTS, account_of
from sandbox.issuer.flow import AuthorizationRequest, Client, Codes, FlowError, UnknownClient
from sandbox.issuer.tokens import ACCESS_SECONDS, ALGORITHM, Mint
from sandbox.web import SafeHeaders, Templates, common_routes

_REQUEST_PARAMETERS = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)


class Issuer:
    """One issuer with one client."""

    def __init__(self, mint: Mint, client: Client) -> None:
        self._mint = mint
        self._client = client
        self._codes = Codes(time.monotonic)
        self._templates = Templates(Path(__file__).parent / "templates")

    def application(self) -> Starlette:
        """Return the web application."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/jwks", self.keys),
                Route("/authorize", self.ask, methods=["GET"]),
                Route("/authorize", self.choose, methods=["POST"]),
                Route("/token", self.token, methods=["POST"]),
                Route("/userinfo", self.userinfo, methods=["GET", "POST"]),
                Route("/logout", self.log_out, methods=["GET", "POST"]),
                Route("/", self.home),
                *common_routes(),
            ],
            middleware=[Middleware(SafeHeaders)],
        )

    async def discovery(self, _request: Request) -> Response:
        """Tell what there is (OIDC Discovery 3)."""
        issuer = self._mint.issuer
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "userinfo_endpoint": f"{issuer}/userinfo",
                "jwks_uri": f"{issuer}/jwks",
                "end_session_endpoint": f"{issuer}/logout",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "scopes_supported": ["openid", "email", "profile"],
                "claims_supported": ["sub", "name", "email", "email_verified", "locale", "roles"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def keys(self, _request: Request) -> Response:
        """Publish the signing key."""
        return JSONResponse(self._mint.key.public_keys())

    async def ask(self, request: Request) -> Response:
        """Show the accounts to choose from."""
        query = dict(request.query_params)
        try:
            wish = AuthorizationRequest.parse(self._client, query)
        except UnknownClient:
            return self._refuse()
        except FlowError as error:
            return self._send_back(query["redirect_uri"], error=str(error), state=query.get("state", ""))
        target = urlsplit(wish.redirect_uri)
        return self._templates.page(
            "login.html",
            # A browser checks the redirect that answers a form against form-action as well.
            headers={
                "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
                f"frame-ancestors 'none'; form-action 'self' {target.scheme}://{target.netloc}"
            },
            destination=target.netloc,
            accounts=ACCOUNTS.values(),
            parameters={name: query[name] for name in _REQUEST_PARAMETERS if name in query},
        )

    async def choose(self, request: Request) -> Response:
        """Send the chosen person back with a code."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        try:
            wish = AuthorizationRequest.parse(self._client, form)
        except UnknownClient:
            return self._refuse()
        except FlowError as error:
            return self._send_back(form["redirect_uri"], error=str(error), state=form.get("state", ""))
        account = ACCOUNTS.get(form.get("account", ""))
        if account is None:
            return self._send_back(wish.redirect_uri, error="access_denied", state=wish.state)
        return self._send_back(wish.redirect_uri, code=self._codes.issue(wish, account), state=wish.state)

    async def token(self, request: Request) -> Response:
        """Exchange a code for tokens (OIDC Core 3.1.3)."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        if not self._client.is_proven_by(*_credentials(request, form)):
            return JSONResponse({"error": "invalid_client"}, 401, {"www-authenticate": "Basic"})
        if form.get("grant_type") != "authorization_code":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        try:
            grant = self._codes.spend(
                form.get("code", ""),
                redirect_uri=form.get("redirect_uri", ""),
                verifier=form.get("code_verifier", ""),
            )
        except FlowError as error:
            return JSONResponse({"error": str(error)}, 400)
        now = int(time.time())
        nonce = grant.request.nonce
        return JSONResponse(
            {
                "access_token": self._mint.access_token(grant.account, now=now),
                "id_token": self._mint.id_token(grant.account, client_id=self._client.client_id, nonce=nonce, now=now),
                "token_type": "Bearer",
                "expires_in": ACCESS_SECONDS,
                "scope": grant.request.scope,
            }
        )

    async def userinfo(self, request: Request) -> Response:
        """Tell who the bearer of an access token is (OIDC Core 5.3)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = self._mint.key.read(token) if scheme.lower() == "bearer" else {}
        except (JoseError, ValueError):
            claims = {}
        expires = claims.get("exp")
        fresh = isinstance(expires, int) and expires > time.time() and claims.get("aud") == self._mint.audience
        if not fresh:
            return JSONResponse({"error": "invalid_token"}, 401, {"www-authenticate": 'Bearer error="invalid_token"'})
        account = account_of(str(claims["sub"]))
        return JSONResponse({"sub": account.subject, **account.claims()})

    async def log_out(self, request: Request) -> Response:
        """Send the browser back, to a registered place only. There is no session here to end."""
        given = request.query_params if request.method == "GET" else await request.form()
        target = str(given.get("post_logout_redirect_uri", ""))
        origins = {_origin(uri) for uri in self._client.redirect_uris}
        if target and _origin(target) in origins:
            state = str(given.get("state", ""))
            return RedirectResponse(f"{target}?{urlencode({'state': state})}" if state else target, 303)
        return self._templates.page(
            "notice.html", title="You are logged out", sentence="You can close this page, or go back and log in again."
        )

    async def home(self, _request: Request) -> Response:
        """Say what this is."""
        return self._templates.page(
            "notice.html",
            title="This is the sandbox's login service",
            sentence="Begin at the page that you want to log in to; it sends you here.",
        )

    def _refuse(self) -> Response:
        return self._templates.page(
            "notice.html",
            status=400,
            title="This login cannot go on",
            sentence="The page that sent you here, or the address it wants you to return to, is not registered.",
        )

    def _send_back(self, redirect_uri: str, **answer: str) -> Response:
        """Redirect with the answer; `iss` lets the client see who answered (RFC 9207)."""
        query = {name: value for name, value in answer.items() if value} | {"iss": self._mint.issuer}
        return RedirectResponse(f"{redirect_uri}?{urlencode(query)}", 303)


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """Return id and secret as the client sent them: in the header or in the form (RFC 6749 2.3.1)."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, client_secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return unquote(client_id), unquote(client_secret)
    return form.get("client_id", ""), form.get("client_secret", "")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
