"""What the OIDC issuer publishes about itself, its endpoints and signing keys: cached, refreshed within bounds."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx
import structlog
from chassis.clock import Clock
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from gateway.auth.tokens import SigningKey
from gateway.errors import IssuerUnavailable

logger = structlog.get_logger(__name__)

# Issuers keep a retired key for at least a day; ten minutes is how long a revoked one lives on here.
KEYS_FRESH_SECONDS = 600.0
METADATA_FRESH_SECONDS = 3600.0
# Kept through an outage of the issuer: tokens that are out there stay good until they expire.
STALE_SECONDS = 24 * 3600.0
# An unknown key id may mean a rotation, or a stranger who makes ids up: ask at most this often.
UNKNOWN_KEY_SECONDS = 10.0
RETRY_SECONDS = 1.0
MAXIMUM_DOCUMENT_BYTES = 256 * 1024
REQUEST_SECONDS = 5.0
MINIMUM_RSA_BITS = 2048
_PUBLIC_MEMBERS: Mapping[str, tuple[str, ...]] = {"EC": ("kty", "crv", "x", "y"), "RSA": ("kty", "n", "e")}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IssuerMetadata:
    """The endpoints of the issuer's discovery document."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    basic_authentication: bool


class _Cached(Generic[T]):
    """One fetched value: fresh for a while, then asked for again, and kept through failures. One fetch at a time."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Clock, fresh_seconds: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._fetched = float("-inf")
        self._tried = float("-inf")

    async def get(self, *, newer_than: float | None = None) -> T:
        """Return the value. With `newer_than`, one fetched after that many seconds ago, if the issuer can be asked."""
        wanted = self._fresh_seconds if newer_than is None else newer_than
        if self._value is None or self._age(self._fetched) > wanted:
            async with self._lock:
                if self._age(self._fetched) > wanted and self._age(self._tried) > RETRY_SECONDS:
                    await self._refresh()
        if self._value is None or self._age(self._fetched) > STALE_SECONDS:
            raise IssuerUnavailable("the login service does not answer")
        return self._value

    async def _refresh(self) -> None:
        self._tried = self._clock.elapsed()
        try:
            self._value = await self._fetch()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, IssuerUnavailable) as error:
            logger.warning("issuer cannot be read", kind=type(error).__name__)
        else:
            self._fetched = self._clock.elapsed()

    def _age(self, moment: float) -> float:
        return self._clock.elapsed() - moment


class Issuer:
    """Reads the issuer's documents."""

    def __init__(self, http: httpx.AsyncClient, *, issuer: str, clock: Clock) -> None:
        self._http = http
        self._issuer = issuer
        self._metadata = _Cached(self._fetch_metadata, clock, METADATA_FRESH_SECONDS)
        self._keys = _Cached(self._fetch_keys, clock, KEYS_FRESH_SECONDS)

    async def metadata(self) -> IssuerMetadata:
        """Return the endpoints. Raises IssuerUnavailable."""
        return await self._metadata.get()

    async def find(self, key_id: str, algorithm: str) -> SigningKey | None:
        """Return the published key of this name for this algorithm, looking for a rotation when it is not known."""
        keys = await self._keys.get()
        if key_id not in keys:
            keys = await self._keys.get(newer_than=UNKNOWN_KEY_SECONDS)
        return keys.get(key_id, {}).get(algorithm)

    async def _fetch_metadata(self) -> IssuerMetadata:
        document = await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ValueError("the discovery document is of another issuer")
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return IssuerMetadata(
            authorization_endpoint=str(document["authorization_endpoint"]),
            token_endpoint=str(document["token_endpoint"]),
            jwks_uri=str(document["jwks_uri"]),
            basic_authentication=isinstance(methods, list) and "client_secret_basic" in methods,
        )

    async def _fetch_keys(self) -> Mapping[str, Mapping[str, SigningKey]]:
        document = await self._get((await self.metadata()).jwks_uri)
        listed = document.get("keys")
        if not isinstance(listed, list):
            raise ValueError("the issuer's keys are not a JWK set")  # noqa: TRY004 # about a document, not an argument
        return _usable_keys(listed)

    async def _get(self, url: str) -> Mapping[str, object]:
        async with self._http.stream(
            "GET", url, timeout=REQUEST_SECONDS, headers={"accept": "application/json"}
        ) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAXIMUM_DOCUMENT_BYTES:
                    raise ValueError("the issuer's document is too long")
        document = json.loads(body)
        if not isinstance(document, dict):
            # A fault in a document, not in an argument of this program.
            raise ValueError("the issuer's document is not an object")  # noqa: TRY004 # same
        return document


def _usable_keys(listed: list[object]) -> dict[str, dict[str, SigningKey]]:
    """Return the keys that may sign tokens, by key id and algorithm. What cannot be used is passed over."""
    usable: dict[str, dict[str, SigningKey]] = {}
    for jwk in listed:
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or not isinstance(jwk.get("kid"), str):
            continue
        found = _import_key(jwk)
        if found is not None and jwk.get("alg", found[0]) == found[0]:
            usable.setdefault(jwk["kid"], {})[found[0]] = found[1]
    return usable


def _import_key(jwk: Mapping[str, object]) -> tuple[str, SigningKey] | None:
    kind = jwk.get("kty")
    members = _PUBLIC_MEMBERS.get(kind) if isinstance(kind, str) else None
    if members is None or not all(isinstance(jwk.get(name), str) for name in members):
        return None
    public: dict[str, str | list[str]] = {name: str(jwk[name]) for name in members}
    try:
        if kind == "EC":
            return ("ES256", ECKey.import_key(public)) if public["crv"] == "P-256" else None
        key = RSAKey.import_key(public)
    except (JoseError, ValueError):
        return None
    return ("RS256", key) if key.public_key.key_size >= MINIMUM_RSA_BITS else None
