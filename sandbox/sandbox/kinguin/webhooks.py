"""Tells the shop that an order's status changed, as unreliably as it is told to.

Best effort by contract: a delivery that fails is tried a few times and then dropped, and what is on its way when the
process dies is lost. Whoever needs the truth asks the API.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from sandbox.kinguin.faults import WebhookMode
from sandbox.kinguin.moments import exact_moment
from sandbox.kinguin.orders import Change

logger = structlog.get_logger(__name__)

# What comes after these is dropped; the real supplier publishes no numbers.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
WORKERS = 8
_MOST_WAITING = 10_000
_FORGED_SECRET = "not-the-secret-that-was-agreed"  # noqa: S105 # its being wrong is the point
# Both spellings are met in the wild (K54).
_CONTENT_TYPES = ("application/json", "aplication/json")

Headers = dict[str, str]
# Sends one request with a deadline and returns its HTTP status. Raises OSError or TimeoutError where there was none.
Post = Callable[[bytes, Headers], Awaitable[int]]


@dataclass(slots=True)
class Counts:
    """What became of the webhooks so far. `failed` counts attempts, the others webhooks."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class _Letter:
    body: bytes
    headers: Headers
    attempt: int = 0


class Webhooks:
    """Queues and sends webhooks. Without an address, everything announced is dropped silently."""

    def __init__(
        self, post: Post | None, *, secret: str, mode: Callable[[], tuple[WebhookMode, float]], seed: int
    ) -> None:
        self._post = post
        self._secret = secret
        self._mode = mode
        self._luck = random.Random(f"{seed}/webhooks")  # noqa: S311 # no secret: it shuffles
        self._waiting: asyncio.Queue[_Letter] = asyncio.Queue()
        self._scheduled: set[asyncio.TimerHandle] = set()
        self._shuffled: list[_Letter] = []
        self._made = 0
        self.counts = Counts()

    @property
    def waiting(self) -> int:
        """How many are to be sent now or later."""
        return self._waiting.qsize() + len(self._scheduled) + len(self._shuffled)

    def announce(self, change: Change) -> None:
        """Queue the webhook of a change, in the way that the mode of the moment asks for."""
        if self._post is None:
            return
        mode, seconds = self._mode()
        letter = self._letter(change, self._secret)
        match mode:
            case "never":
                self.counts.suppressed += 1
            case "late":
                self._later(seconds, letter)
            case "shuffled":
                self._shuffle(seconds, letter)
            case "twice":
                self._put(letter)
                self._put(letter)
            case "forged":
                lie = Change(change.order_id, change.external_id, "refunded", change.updated_at)
                self._put(self._letter(lie, _FORGED_SECRET))
                self._put(letter)
            case "normal":
                self._put(letter)

    def probe(self) -> None:
        """Queue what the dashboard's TEST URL button sends (K60)."""
        body = {"orderId": "TEST", "orderExternalId": "TEST", "status": "completed", "updatedAt": exact_moment(0)}
        self._put(_Letter(json.dumps(body).encode(), self._headers(self._secret)))

    def forget(self) -> None:
        """Drop what has not been sent, and count from zero."""
        for handle in self._scheduled:
            handle.cancel()
        self._scheduled.clear()
        self._shuffled.clear()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self.counts = Counts()

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._send(await self._waiting.get())

    async def _send(self, letter: _Letter) -> None:
        if self._post is None:
            return
        try:
            status = await self._post(letter.body, letter.headers)
        except (OSError, TimeoutError):
            status = 0
        if 200 <= status < 300:  # noqa: PLR2004 # any 2xx (K56)
            self.counts.delivered += 1
            return
        self.counts.failed += 1
        if letter.attempt >= len(RETRY_SECONDS):
            self.counts.dropped += 1
            logger.warning("webhook dropped", status=status)
            return
        self._later(RETRY_SECONDS[letter.attempt], _Letter(letter.body, letter.headers, letter.attempt + 1))

    def _letter(self, change: Change, secret: str) -> _Letter:
        body = {"orderId": change.order_id, "status": change.status, "updatedAt": exact_moment(change.updated_at)}
        if change.external_id is not None:
            body["orderExternalId"] = change.external_id
        return _Letter(json.dumps(body).encode(), self._headers(secret))

    def _headers(self, secret: str) -> Headers:
        self._made += 1
        content_type = _CONTENT_TYPES[self._made % len(_CONTENT_TYPES)]
        return {"X-Event-Name": "order.status", "X-Event-Secret": secret, "Content-Type": content_type}

    def _put(self, letter: _Letter) -> None:
        if self.waiting >= _MOST_WAITING:
            self.counts.dropped += 1
            return
        self._waiting.put_nowait(letter)

    def _later(self, seconds: float, letter: _Letter) -> None:
        self._schedule(seconds, lambda: self._put(letter))

    def _schedule(self, seconds: float, act: Callable[[], None]) -> None:
        def fire() -> None:
            self._scheduled.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(seconds, fire)
        self._scheduled.add(handle)

    def _shuffle(self, seconds: float, letter: _Letter) -> None:
        """Keep the letter with those of the next `seconds`, then send them all in another order."""
        if not self._shuffled:
            self._schedule(seconds, self._send_shuffled)
        self._shuffled.append(letter)

    def _send_shuffled(self) -> None:
        letters, self._shuffled = self._shuffled, []
        before = list(letters)
        self._luck.shuffle(letters)
        # A shuffle may leave the order as it was, which is not what this mode is for.
        for letter in reversed(before) if letters == before else letters:
            self._put(letter)
