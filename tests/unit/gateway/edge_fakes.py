"""The edge on fakes below its ports: orders and keys in memory, an issuer without sockets, a clock that is set."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import grpc
import httpx
from chassis.clock import Clock
from chassis.errors import KeyferryError, RemoteError
from chassis.keyring import Keyring
from gateway.app import create_app
from gateway.assets import Assets
from gateway.auth.issuer import Issuer
from gateway.auth.login import Client, Login
from gateway.auth.principal import Principal
from gateway.auth.session import COOKIE, Session, Sessions
from gateway.auth.tokens import TokenVerifier
from gateway.domain.fact import Fact
from gateway.domain.order import Amount, Customer, DownloadLink, Key, KeyRequest, Line, Order, OrderPage, State
from gateway.domain.webhook import WebhookHint
from gateway.edge import Edge, Streams, WebhookProofs
from gateway.limits import Limiter
from gateway.pages import Pages
from gateway.telling import Teller
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from starlette.types import ASGIApp

ORIGIN = "https://keys.example.test"
OBJECT_ORIGIN = "https://objects.example.test"
ISSUER = "https://login.example.test"
AUDIENCE = "keyferry"
CLIENT_ID = "keyferry-edge"
WEBHOOK_SECRET = "hook-secret-one"
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class FakeClock:
    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def elapsed(self) -> float:
        return (self.moment - START).total_seconds() + 1000

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def an_order(order_id: str = "order-1", state: State = State.READY, *, keys: int = 1, quantity: int = 1) -> Order:
    ready = tuple(Key(f"key-{order_id}-{n}", "text/plain", START, None) for n in range(1, keys + 1))
    line = Line("item-1", "5c9b5e", "Half Life <3>", quantity, state, "", ready)
    paid = None if state is State.AWAITING_PAYMENT else START
    return Order(order_id, state, "", Amount("EUR", 1999), None, (line,), START, START, paid)


def not_found() -> RemoteError:
    return RemoteError("no such order", code=grpc.StatusCode.NOT_FOUND, reason="ORDER_NOT_FOUND")


def down() -> RemoteError:
    return RemoteError(
        "failed to connect to ipv4:10.0.0.7:7001", code=grpc.StatusCode.UNAVAILABLE, reason="SERVICE_UNAVAILABLE"
    )


class FakeFulfillments:
    """Implements `Fulfillments` as fulfillment and vault do: sealed JWEs, content keys to the one-time public key."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, str], Order] = {}
        self.plaintexts: dict[str, tuple[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.failure: KeyferryError | Exception | None = None
        self.open_failure: KeyferryError | None = None
        self.requests: list[KeyRequest] = []
        self.customers: list[Customer] = []
        self.object_origin = OBJECT_ORIGIN
        self.link_seconds = 900.0
        self.changed = asyncio.Event()
        self._contents: dict[str, bytes] = {}

    def put(self, customer_id: str, order: Order) -> None:
        self.orders[customer_id, order.order_id] = order
        for line in order.lines:
            for key in line.keys:
                self.plaintexts.setdefault(key.key_id, (key.content_type, b"AAAA-BBBB-CCCC"))
        self.changed.set()
        self.changed = asyncio.Event()

    async def get(self, order_id: str, customer: Customer) -> Order:
        self._enter(customer)
        try:
            return self.orders[customer.customer_id, order_id]
        except KeyError:
            raise not_found() from None

    async def list(self, customer: Customer, *, page_size: int, page_token: str) -> OrderPage:
        self._enter(customer)
        mine = [order for (owner, _), order in self.orders.items() if owner == customer.customer_id]
        if not (page_token or "0").isdecimal():
            raise RemoteError("bad", code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST")
        start = int(page_token or 0)
        more = str(start + page_size) if len(mine) > start + page_size else ""
        return OrderPage(tuple(mine[start : start + page_size]), more)

    async def watch(self, order_id: str, customer: Customer) -> AsyncGenerator[Order, None]:
        while True:
            changed = self.changed
            yield await self.get(order_id, customer)
            await changed.wait()

    async def create_download_link(self, request: KeyRequest) -> DownloadLink:
        content_key = self._open(request)
        sealed = self.objects[request.key_id]
        return DownloadLink(
            url=f"{self.object_origin}/keys/{request.key_id}?X-Amz-Signature=1",
            expire_time=datetime.now(UTC) + timedelta(seconds=self.link_seconds),
            content_key_jwe=encrypt_to(request.recipient_jwk, content_key),
            object_sha256=hashlib.sha256(sealed).digest(),
        )

    async def reveal_key(self, request: KeyRequest) -> str:
        self._open(request)
        content_type, plaintext = self.plaintexts[request.key_id]
        return encrypt_to(request.recipient_jwk, plaintext, cty=content_type)

    def _enter(self, customer: Customer) -> None:
        self.customers.append(customer)
        if self.failure is not None:
            raise self.failure

    def _open(self, request: KeyRequest) -> bytes:
        self._enter(request.customer)
        if self.open_failure is not None:
            raise self.open_failure
        order = self.orders.get((request.customer.customer_id, request.order_id))
        if order is None or not any(key.key_id == request.key_id for line in order.lines for key in line.keys):
            raise not_found()
        self.requests.append(request)
        content_key = self._contents.setdefault(request.key_id, os.urandom(32))
        content_type, plaintext = self.plaintexts[request.key_id]
        header = {"alg": "dir", "enc": "A256GCM", "kid": request.key_id, "cty": content_type}
        if request.key_id not in self.objects:
            sealed = jwe.encrypt_compact(header, plaintext, OctKey.import_key(content_key), ["dir", "A256GCM"])
            self.objects[request.key_id] = sealed.encode()
        return content_key


def encrypt_to(recipient_jwk: bytes, plaintext: bytes, **header: str) -> str:
    algorithms = ["ECDH-ES+A256KW", "A256GCM"]
    protected = {"alg": algorithms[0], "enc": algorithms[1], **header}
    return jwe.encrypt_compact(protected, plaintext, ECKey.import_key(json.loads(recipient_jwk)), algorithms)


class FakeCheckpoints:
    def __init__(self) -> None:
        self.note = "keys.example.test/audit\n1\nAAAA\n\n\u2014 keys.example.test/audit AAAA\n"
        self.failure: KeyferryError | None = None

    async def newest(self) -> str:
        if self.failure is not None:
            raise self.failure
        return self.note


class FakeWebhooks:
    def __init__(self) -> None:
        self.stored: list[WebhookHint] = []
        self.failure: KeyferryError | None = None

    async def publish(self, hint: WebhookHint) -> None:
        if self.failure is not None:
            raise self.failure
        self.stored.append(hint)


class FakeIssuer:
    """An OIDC issuer behind a mock transport. `is_down` makes every request fail."""

    def __init__(self, clock: Clock, url: str = ISSUER) -> None:
        self.clock = clock
        self.url = url
        self.key = ECKey.generate_key("P-256", {"kid": "es-1", "use": "sig", "alg": "ES256"})
        self.rsa = RSAKey.generate_key(2048, {"kid": "rs-1", "use": "sig"})
        self.published: list[Mapping[str, object]] = [
            self.key.as_dict(private=False),
            self.rsa.as_dict(private=False),
        ]
        self.is_down = False
        self.requests: list[str] = []
        self.exchanged: dict[str, str] = {}
        self.authorization = ""
        self.id_token_claims: dict[str, object] = {}
        self.token_status = 200
        self.auth_methods: list[str] | None = None

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request.url.path)
        if self.is_down:
            raise httpx.ConnectError("refused")
        match request.url.path:
            case "/.well-known/openid-configuration":
                document: dict[str, object] = {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/jwks",
                }
                if self.auth_methods is not None:
                    document["token_endpoint_auth_methods_supported"] = self.auth_methods
                return httpx.Response(200, json=document)
            case "/jwks":
                return httpx.Response(200, json={"keys": self.published})
            case "/token":
                self.exchanged = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
                self.authorization = request.headers.get("authorization", "")
                token = self.sign(self.claims(**{"aud": CLIENT_ID, **self.id_token_claims}))
                return httpx.Response(self.token_status, json={"id_token": token, "access_token": "unused"})
            case _:
                return httpx.Response(404)

    def claims(self, **changes: object) -> dict[str, object]:
        now = self.clock.now().timestamp()
        claims: dict[str, object] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "email": "alice@example.test",
            "iat": now,
            "exp": now + 300,
        }
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        protected = {"alg": "ES256", "kid": "es-1", "typ": "at+jwt" if "nonce" not in claims else "JWT", **header}
        key = self.rsa if protected["alg"] == "RS256" else self.key
        return jwt.encode(protected, dict(claims), key, [str(protected["alg"])])

    def token(self, **changes: object) -> str:
        return self.sign(self.claims(**changes))


class FakeFacts:
    """Implements `FactSink`. `failure` makes it unreachable."""

    def __init__(self) -> None:
        self.told: list[Fact] = []
        self.failure: KeyferryError | None = None

    async def tell(self, fact: Fact) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append(fact)


@dataclass
class World:
    """The edge and everything around it."""

    clock: FakeClock = field(default_factory=FakeClock)
    fulfillments: FakeFulfillments = field(default_factory=FakeFulfillments)
    checkpoints: FakeCheckpoints = field(default_factory=FakeCheckpoints)
    webhooks: FakeWebhooks = field(default_factory=FakeWebhooks)
    facts: FakeFacts = field(default_factory=FakeFacts)
    limits: dict[str, str] = field(default_factory=dict)
    signature_secrets: tuple[bytes, ...] = ()
    origin: str = ORIGIN
    object_origin: str = OBJECT_ORIGIN
    stream_seconds: float = 60.0
    country_header: str = ""

    def __post_init__(self) -> None:
        self.issuer = FakeIssuer(self.clock)
        self.keyring = Keyring.parse("v1:" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
        self.sessions = Sessions(self.keyring, lifetime_seconds=3600, clock=self.clock)
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self.issuer.handle))
        self.streams = Streams()
        self.teller = Teller(self.facts, self.clock)

    def edge(self) -> Edge:
        issuer = Issuer(self.http, issuer=ISSUER, clock=self.clock)
        verifier = TokenVerifier(issuer, issuer=ISSUER)
        client = Client(ISSUER, CLIENT_ID, "client:secret", f"{self.origin}/callback")
        assets = Assets()
        limits = {"address": "1000/minute", "customer": "1000/minute", "open_key": "1000/minute"}
        return Edge(
            origin=self.origin,
            object_origin=self.object_origin,
            audience=AUDIENCE,
            clock=self.clock,
            fulfillments=self.fulfillments,
            checkpoints=self.checkpoints,
            webhooks=self.webhooks,
            webhook_proofs=WebhookProofs([WEBHOOK_SECRET.encode(), b"hook-secret-old"], self.signature_secrets),
            verifier=verifier,
            sessions=self.sessions,
            login=Login(
                http=self.http, issuer=issuer, verifier=verifier, client=client, keyring=self.keyring, clock=self.clock
            ),
            teller=self.teller,
            limiter=Limiter({**limits, "refused_webhook": "1000/minute", **self.limits}),
            pages=Pages(assets),
            assets=assets,
            streams=self.streams,
            stream_seconds=self.stream_seconds,
            country_header=self.country_header,
        )

    def app(self) -> ASGIApp:
        return create_app(self.edge())

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url=self.origin)

    def session(self, subject: str = "alice", **changes: object) -> tuple[Session, dict[str, str]]:
        """Return a session and the cookie header of its browser."""
        principal = replace(
            Principal(subject, f"{subject}@example.test", subject.title(), (), "en"),
            **changes,  # type: ignore[arg-type] # a test names the fields it changes
        )
        session, cookie = self.sessions.begin(principal)
        return session, {"cookie": f"{COOKIE}={cookie}"}

    def bearer(self, **changes: object) -> dict[str, str]:
        return {"authorization": f"Bearer {self.issuer.token(**changes)}"}


def one_time_key() -> tuple[ECKey, dict[str, object]]:
    key = ECKey.generate_key("P-256")
    public = key.as_dict(private=False)
    return key, {name: public[name] for name in ("kty", "crv", "x", "y")}
