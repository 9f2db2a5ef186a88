"""Everything a request handler may use, assembled once; it travels in the ASGI scope."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import quote

from chassis.clock import Clock
from starlette.requests import Request

from gateway.assets import Assets
from gateway.auth.login import Login
from gateway.auth.session import Sessions
from gateway.auth.tokens import TokenVerifier
from gateway.errors import RateLimited
from gateway.limits import Limiter
from gateway.pages import Pages
from gateway.ports import Checkpoints, Fulfillments, WebhookSink
from gateway.telling import Teller

SCOPE_KEY = "keyferry.edge"
# A browser opens one per tab and at most six per host; more is a script that never hangs up.
STREAMS_PER_CUSTOMER = 10


@dataclass(frozen=True, slots=True)
class WebhookProofs:
    """The secrets that a webhook may prove itself with. With signature secrets, the signature is required as well."""

    event_secrets: Sequence[bytes] = field(repr=False)
    signature_secrets: Sequence[bytes] = field(default=(), repr=False)


class Streams:
    """Counts the open event streams of each customer, and tells all of them when the process drains."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self.stopping = asyncio.Event()

    @contextmanager
    def slot(self, customer_id: str) -> Iterator[None]:
        """Count one stream while it is open. Raises RateLimited when the customer has too many."""
        if self._open[customer_id] >= STREAMS_PER_CUSTOMER:
            raise RateLimited("too many open event streams; close some of them", retry_after=timedelta(seconds=30))
        self._open[customer_id] += 1
        try:
            yield
        finally:
            self._open[customer_id] -= 1
            if not self._open[customer_id]:
                del self._open[customer_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The collaborators of the routes. `origin` is where our pages live, `object_origin` where ciphertexts lie."""

    origin: str
    object_origin: str
    audience: str
    clock: Clock
    fulfillments: Fulfillments
    checkpoints: Checkpoints
    webhooks: WebhookSink
    webhook_proofs: WebhookProofs
    verifier: TokenVerifier
    sessions: Sessions
    login: Login
    teller: Teller
    limiter: Limiter
    pages: Pages
    assets: Assets
    streams: Streams
    stream_seconds: float
    country_header: str = ""

    @staticmethod
    def login_url(request: Request) -> str:
        """Return the login address that leads back to where the request was going."""
        query = f"?{request.url.query}" if request.url.query else ""
        return f"/login?next={quote(request.url.path + query, safe='/')}"


def edge_of(request: Request) -> Edge:
    """Return the edge that serves this request."""
    edge = request.scope[SCOPE_KEY]
    if not isinstance(edge, Edge):
        raise TypeError("the application is not wrapped in its envelope")
    return edge
