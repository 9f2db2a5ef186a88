"""Tells the audit log what happens at the edge, which has no database to keep it in until it is told.

What a person did is told before they are answered. Where that fails the answer goes on, and the fact waits in memory
until it can be told: opening a key has its own entry in any case, without which there is no key.
"""

import asyncio
import hashlib
import secrets
from collections import deque
from contextlib import suppress

import structlog
from chassis.clock import Clock
from chassis.errors import KeyferryError

from gateway.auth.session import Session
from gateway.domain.fact import Fact, RefusalCounts
from gateway.domain.order import Customer
from gateway.metrics import FACTS_DROPPED, FACTS_WAITING
from gateway.ports import FactSink

logger = structlog.get_logger(__name__)

ADMIN_ROLE = "keyferry-admin"
# A person waits for it: less than they would notice as a fault.
TELL_SECONDS = 1.0
LOOK_SECONDS = 1.0
# Some ten minutes of logins, in a few megabytes, while NATS is away.
MOST_WAITING = 10_000
# At the end of a process what is left is told if it can be done at once.
LAST_SECONDS = 2.0


class Teller:
    """Collects facts and tells them. `run` must be running."""

    def __init__(self, sink: FactSink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._refusals = RefusalCounts(secrets.token_hex(8))
        self._waiting: deque[Fact] = deque()

    async def session_started(self, session: Session, person: Customer) -> None:
        """Tell that somebody logged in."""
        await self._tell_of("session.started", session, person)

    async def session_ended(self, session: Session, person: Customer) -> None:
        """Tell that somebody logged out."""
        await self._tell_of("session.ended", session, person)

    def refused(self, action: str, address: str) -> None:
        """Count a refusal of nobody in particular."""
        self._refusals.count(action, address, self._clock.now())

    def settings_read(self, digest: str) -> None:
        """Tell with what settings the edge runs: each once, for it keeps nothing to compare them with."""
        self.tell_later(Fact("settings.changed", (digest,), self._clock.now(), {"digest": digest}))

    def tell_later(self, fact: Fact) -> None:
        """Keep a fact until it can be told."""
        if len(self._waiting) >= MOST_WAITING:
            FACTS_DROPPED.inc()
            logger.error("a fact for the audit log was dropped", action=fact.action)
            return
        self._waiting.append(fact)
        FACTS_WAITING.set(len(self._waiting))

    async def run(self) -> None:
        """Tell what waits until canceled; then tell the rest, once."""
        try:
            while True:
                await self.tell_waiting()
                await self._clock.sleep(LOOK_SECONDS)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self.tell_waiting(unfinished=True)

    async def tell_waiting(self, *, unfinished: bool = False) -> None:
        """Tell what waits, oldest first, as far as it can be told now."""
        for fact in self._refusals.take(self._clock.now(), unfinished=unfinished):
            self.tell_later(fact)
        try:
            while self._waiting:
                await self._sink.tell(self._waiting[0])
                self._waiting.popleft()
        except KeyferryError as error:
            logger.warning("telling the audit log is held up", waiting=len(self._waiting), reason=error.reason)
        FACTS_WAITING.set(len(self._waiting))

    async def _tell_of(self, action: str, session: Session, person: Customer) -> None:
        # The two entries of a session can be told to be of one; its id, which is as good as its cookie, stays out.
        name = hashlib.sha256(session.session_id.encode()).hexdigest()[:32]
        is_admin = ADMIN_ROLE in session.principal.roles
        fact = Fact(action, (name,), self._clock.now(), {"session": name}, person, is_admin)
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await self._sink.tell(fact)
        except (KeyferryError, TimeoutError):
            self.tell_later(fact)
