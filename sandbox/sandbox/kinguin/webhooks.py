"""Tells the shop what changed, as unreliably as it is told to.

Best effort by contract: a delivery that fails is tried a few times and then dropped, after too many failures in a row
the endpoint is disabled, and what is on its way when the process dies is lost. Whoever needs the truth asks the API.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import structlog

from sandbox.kinguin.letters import Headers, Letter, Writer
from sandbox.kinguin.mischief import WebhookMode
from sandbox.kinguin.orders import Change

logger = structlog.get_logger(__name__)

# What comes after these is dropped; the real supplier publishes no numbers.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
WORKERS = 8
_MOST_WAITING = 10_000
_MOST_REMEMBERED = 10_000
_FLOOD_TICK_SECONDS = 0.02

# Sends one request with a deadline and returns its HTTP status. Raises OSError or TimeoutError where there was none.
Post = Callable[[bytes, Headers], Awaitable[int]]


class Moods(Protocol):
    """Says how the next webhook is treated; asking may count."""

    def webhook_mode(self) -> tuple[WebhookMode, float]:
        """Return the mode and the seconds that belong to it."""
        ...

    def order_complete(self) -> Literal["besides", "instead"] | None:
        """Tell whether a completed order is told by `order.complete`, besides or instead of `order.status`."""
        ...

    def wants_product_updates(self) -> bool:
        """Tell whether a change of stock is told."""
        ...

    def most_failed_webhooks(self) -> int:
        """Return after how many failed deliveries in a row the endpoint is disabled."""
        ...


@dataclass(slots=True)
class Counts:
    """What became of the webhooks so far. `failed` counts attempts, the others webhooks."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    suppressed: int = 0


class Webhooks:
    """Queues and sends webhooks. Without an address, everything announced is dropped silently."""

    def __init__(self, post: Post | None, *, secret: str, moods: Moods, seed: int) -> None:
        self._post = post
        self._moods = moods
        self._writer = Writer(secret, seed=seed)
        self._luck = random.Random(f"{seed}/webhooks")  # noqa: S311 # no secret: it shuffles
        self._waiting: asyncio.Queue[Letter] = asyncio.Queue()
        self._scheduled: set[asyncio.TimerHandle] = set()
        self._shuffled: list[Letter] = []
        self._last: OrderedDict[str, Letter] = OrderedDict()
        self._failed_in_row = 0
        self.enabled = True
        self.counts = Counts()

    @property
    def waiting(self) -> int:
        """How many are to be sent now or later."""
        return self._waiting.qsize() + len(self._scheduled) + len(self._shuffled)

    def as_json(self) -> dict[str, object]:
        """Return what became of the webhooks, and whether the endpoint is still tried."""
        state = {"waiting": self.waiting, "enabled": self.enabled, "failed_in_row": self._failed_in_row}
        return {**asdict(self.counts), **state}

    def announce(self, change: Change) -> None:
        """Queue the webhooks of a change, in the way that the mode of the moment asks for."""
        if self._post is None:
            return
        older = self._moods.order_complete() if change.status == "completed" else None
        if older is not None:
            self._send_as(self._writer.complete(change), change)
        if older != "instead":
            self._send_as(self._writer.status(change), change)

    def announce_product(self, product: Mapping[str, object], updated_at: float) -> None:
        """Queue `product.update` where a rule asks for such; `product` is as the API shows it."""
        if self._post is not None and self._moods.wants_product_updates():
            self._send_as(self._writer.product(product, updated_at), None)

    def _send_as(self, letter: Letter, change: Change | None) -> None:
        """Queue a letter in the mode of the moment; `change` is what it tells of an order."""
        if not self.enabled:
            self.counts.suppressed += 1
            return
        mode, seconds = self._moods.webhook_mode()
        before = self._remember(letter, change)
        match mode:
            case "never":
                self.counts.suppressed += 1
            case "late":
                self._later(seconds, letter)
            case "shuffled":
                self._shuffle(seconds, letter)
            case "stale":
                self._put(letter)
                if before is not None:
                    self._later(seconds, before)
            case "twice" | "forged" | "normal":
                self._put(*self._written(letter, change, mode))

    def _written(self, letter: Letter, change: Change | None, mode: WebhookMode) -> list[Letter]:
        """Return what is sent at once: the letter, its copy, or before it a lie about the same change."""
        if mode == "twice":
            return [letter, letter]
        return [self._writer.forgery(change), letter] if mode == "forged" and change is not None else [letter]

    def _remember(self, letter: Letter, change: Change | None) -> Letter | None:
        """Keep the last letter about an order, and return the one before."""
        if change is None:
            return None
        before = self._last.pop(change.order_id, None)
        self._last[change.order_id] = letter
        if len(self._last) > _MOST_REMEMBERED:
            self._last.popitem(last=False)
        return before

    def probe(self) -> None:
        """Queue what the dashboard's TEST URL button sends, also to an endpoint that is disabled (K60)."""
        self._put(self._writer.probe())

    def flood(self, count: int, *, per_second: float, updated_at: float) -> None:
        """Queue so many `product.update` for products that were never sold here, at an even pace."""
        if self._post is None:
            return
        begin = asyncio.get_running_loop().time()

        def pour(done: int) -> None:
            due = min(count, int((asyncio.get_running_loop().time() - begin) * per_second) + 1)
            for _ in range(done, due):
                self._put(self._writer.invented_product(updated_at))
            if due < count and self.enabled:
                self._schedule(_FLOOD_TICK_SECONDS, lambda: pour(due))

        pour(0)

    def enable(self) -> None:
        """Let the endpoint have webhooks again."""
        self.enabled, self._failed_in_row = True, 0

    def disable(self) -> None:
        """Send nothing any more, nor what waits, until somebody enables the endpoint again (K58)."""
        self.counts.dropped += self._empty()
        self.enabled = False
        logger.warning("webhook endpoint disabled", failed_in_row=self._failed_in_row)

    def forget(self) -> None:
        """Drop what has not been sent, count from zero, and trust the endpoint again."""
        self._empty()
        self._last.clear()
        self.enable()
        self.counts = Counts()

    def _empty(self) -> int:
        """Drop what has not been sent, and return how much that was."""
        dropped = self.waiting
        for handle in self._scheduled:
            handle.cancel()
        self._scheduled.clear()
        self._shuffled.clear()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        return dropped

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._send(await self._waiting.get())

    async def _send(self, letter: Letter) -> None:
        if self._post is None:
            return
        try:
            status = await self._post(letter.body, letter.headers)
        except (OSError, TimeoutError):
            status = 0
        if 200 <= status < 300:  # noqa: PLR2004 # any 2xx (K56)
            self.counts.delivered += 1
            self._failed_in_row = 0
            return
        self._fail(letter, status)

    def _fail(self, letter: Letter, status: int) -> None:
        self.counts.failed += 1
        self._failed_in_row += 1
        if self.enabled and letter.attempt < len(RETRY_SECONDS):
            self._later(RETRY_SECONDS[letter.attempt], letter.again())
        else:
            self.counts.dropped += 1
            logger.warning("webhook dropped", status=status)
        if self.enabled and self._failed_in_row >= self._moods.most_failed_webhooks():
            self.disable()

    def _put(self, *letters: Letter) -> None:
        for letter in letters:
            if self.waiting >= _MOST_WAITING:
                self.counts.dropped += 1
            else:
                self._waiting.put_nowait(letter)

    def _later(self, seconds: float, letter: Letter) -> None:
        self._schedule(seconds, lambda: self._put(letter))

    def _schedule(self, seconds: float, act: Callable[[], None]) -> None:
        def fire() -> None:
            self._scheduled.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(seconds, fire)
        self._scheduled.add(handle)

    def _shuffle(self, seconds: float, letter: Letter) -> None:
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
