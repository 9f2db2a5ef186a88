"""The login: OIDC authorization code flow with PKCE, state and nonce (OIDC Core 3.1, RFC 7636, RFC 9207)."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import httpx
import structlog
from chassis.clock import Clock
from chassis.keyring import Keyring

from gateway.auth.cookies import CookieSealer
from gateway.auth.issuer import REQUEST_SECONDS, Issuer, IssuerMetadata
from gateway.auth.principal import Principal
from gateway.auth.tokens import TokenVerifier
from gateway.errors import IssuerUnavailable, LoginFailed, TokenInvalid

logger = structlog.get_logger(__name__)

FLOW_COOKIE = "__Host-keyferry-login"
# Enough to find a password and a second factor.
FLOW_SECONDS = 600
_RANDOM_BYTES = 32
_SCOPE = "openid email profile"


@dataclass(frozen=True, slots=True)
class Client:
    """How the issuer knows us. `redirect_uri` is our `/callback`."""

    issuer: str
    client_id: str
    client_secret: str
    redirect_uri: str

    def __repr__(self) -> str:
        return f"Client({self.client_id})"


class Login:
    """Sends a browser to the issuer and checks what it brings back. Between the two, an encrypted cookie remembers."""

    def __init__(
        self,
        *,
        http: httpx.AsyncClient,
        issuer: Issuer,
        verifier: TokenVerifier,
        client: Client,
        keyring: Keyring,
        clock: Clock,
    ) -> None:
        self._http = http
        self._issuer = issuer
        self._verifier = verifier
        self._client = client
        self._sealer = CookieSealer(keyring, purpose="login")
        self._clock = clock

    async def begin(self, next_path: str) -> tuple[str, str]:
        """Return the issuer's address to go to and the flow cookie's value. Raises IssuerUnavailable."""
        metadata = await self._issuer.metadata()
        state, nonce, verifier = (secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client.client_id,
                "redirect_uri": self._client.redirect_uri,
                "scope": _SCOPE,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        flow = {
            "state": state,
            "nonce": nonce,
            "verifier": verifier,
            "next": next_path,
            "exp": self._now() + FLOW_SECONDS,
        }
        separator = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{separator}{query}", self._sealer.seal(flow)

    async def finish(self, cookie: str | None, answer: Mapping[str, str]) -> tuple[Principal, str]:
        """Return who logged in and where they wanted to go. Raises LoginFailed or IssuerUnavailable."""
        flow = self._sealer.open(cookie) if cookie else None
        expires = flow.get("exp") if flow else None
        if flow is None or not isinstance(expires, (int, float)) or expires <= self._now():
            raise LoginFailed("this login took too long or was begun in another browser; please try again")
        if not secrets.compare_digest(str(flow["state"]).encode(), answer.get("state", "").encode()):
            raise LoginFailed("this login was overtaken by another one; please try again")
        if answer.get("iss", self._client.issuer) != self._client.issuer:
            raise LoginFailed("the answer came from another login service; please try again")
        if "error" in answer or not answer.get("code"):
            raise LoginFailed("the login service did not let you in; please try again")
        id_token = await self._exchange(answer["code"], str(flow["verifier"]))
        try:
            claims = await self._verifier.verify_id_token(
                id_token, client_id=self._client.client_id, nonce=str(flow["nonce"]), now=self._now()
            )
        except TokenInvalid as error:
            logger.warning("issuer's id token refused", detail=error.message)
            raise LoginFailed("the login service's answer does not hold; please try again") from error
        return Principal.from_claims(claims), str(flow["next"])

    async def _exchange(self, code: str, verifier: str) -> str:
        metadata = await self._issuer.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"accept": "application/json"}
        self._authenticate(metadata, form, headers)
        try:
            response = await self._http.post(
                metadata.token_endpoint, data=form, headers=headers, timeout=REQUEST_SECONDS
            )
            answer = response.json() if response.status_code < 500 else None  # noqa: PLR2004 # the issuer's own failures
        except (httpx.HTTPError, ValueError) as error:
            raise IssuerUnavailable("the login service does not answer") from error
        if answer is None:
            raise IssuerUnavailable("the login service does not answer")
        id_token = answer.get("id_token") if isinstance(answer, dict) else None
        if response.status_code != 200 or not isinstance(id_token, str):  # noqa: PLR2004 # RFC 6749 5.1
            logger.warning("issuer refused the code", status=response.status_code)
            raise LoginFailed("the login service did not accept this login; please try again")
        return id_token

    def _authenticate(self, metadata: IssuerMetadata, form: dict[str, str], headers: dict[str, str]) -> None:
        """Add our client credentials in the way the issuer prefers (RFC 6749 2.3.1)."""
        client_id, client_secret = self._client.client_id, self._client.client_secret
        if metadata.basic_authentication:
            pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form["client_id"] = client_id
            form["client_secret"] = client_secret

    def _now(self) -> float:
        return self._clock.now().timestamp()
