"""The authorization code flow: what a client may ask, and codes that can be spent once (RFC 6749, RFC 7636)."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.issuer.accounts import Account

# RFC 6749 4.1.2 recommends at most ten minutes; a redirect takes no time.
CODE_SECONDS = 60.0
_CODE_BYTES = 32
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class UnknownClient(Exception):
    """Who asks, or where to send the answer, is not registered; the browser must not be sent anywhere."""


class FlowError(Exception):
    """An error of the protocol, to be told to the client: its code is the message."""


@dataclass(frozen=True, slots=True)
class Client:
    """The one registered client."""

    client_id: str
    client_secret: str
    redirect_uris: tuple[str, ...]

    def is_proven_by(self, client_id: str, client_secret: str) -> bool:
        """Tell whether these are its credentials."""
        same_id = secrets.compare_digest(client_id.encode(), self.client_id.encode())
        return secrets.compare_digest(client_secret.encode(), self.client_secret.encode()) and same_id


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a client asked for, checked."""

    redirect_uri: str
    state: str
    nonce: str
    challenge: str
    scope: str

    @classmethod
    def parse(cls, client: Client, query: Mapping[str, str]) -> "AuthorizationRequest":
        """Check a request. Raises UnknownClient, or FlowError once it is safe to answer the client."""
        if query.get("client_id") != client.client_id or query.get("redirect_uri") not in client.redirect_uris:
            raise UnknownClient
        if query.get("response_type") != "code":
            raise FlowError("unsupported_response_type")
        if "openid" not in query.get("scope", "").split():
            raise FlowError("invalid_scope")
        if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(query.get("code_challenge", "")):
            raise FlowError("invalid_request")
        if query.get("prompt") == "none":
            raise FlowError("login_required")
        return cls(
            redirect_uri=query["redirect_uri"],
            state=query.get("state", ""),
            nonce=query.get("nonce", ""),
            challenge=query["code_challenge"],
            scope=query["scope"],
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """What a code stands for."""

    request: AuthorizationRequest
    account: Account
    expires: float


class Codes:
    """Codes given out and not yet spent. In memory: a login that a restart interrupts begins again."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._grants: dict[str, Grant] = {}

    def issue(self, request: AuthorizationRequest, account: Account) -> str:
        """Return a new code."""
        now = self._now()
        self._grants = {code: grant for code, grant in self._grants.items() if grant.expires > now}
        code = secrets.token_urlsafe(_CODE_BYTES)
        self._grants[code] = Grant(request, account, now + CODE_SECONDS)
        return code

    def spend(self, code: str, *, redirect_uri: str, verifier: str) -> Grant:
        """Return what the code stands for, once; a wrong verifier spends it too. Raises FlowError."""
        grant = self._grants.pop(code, None)
        if grant is None or grant.expires <= self._now():
            raise FlowError("invalid_grant")
        if grant.request.redirect_uri != redirect_uri or not _VERIFIER.fullmatch(verifier):
            raise FlowError("invalid_grant")
        if not secrets.compare_digest(challenge_of(verifier), grant.request.challenge):
            raise FlowError("invalid_grant")
        return grant


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
