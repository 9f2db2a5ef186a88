"""How often one customer or one address may ask. Counted in memory: it holds for one replica."""

import math
import time
from dataclasses import dataclass
from datetime import timedelta

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from gateway.errors import RateLimited


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit after one more request.

    Renders the RateLimit header fields (IETF draft-ietf-httpapi-ratelimit-headers).
    """

    policy: str
    limit: RateLimitItem
    remaining: int
    reset_seconds: int
    allowed: bool

    def check(self) -> None:
        """Raise RateLimited when this request was one too many."""
        if not self.allowed:
            raise RateLimited(
                "too many requests; wait and try again",
                metadata={"policy": self.policy},
                retry_after=timedelta(seconds=self.reset_seconds),
            )

    def headers(self) -> dict[str, str]:
        """Return the two header fields."""
        return {
            "ratelimit-policy": f'"{self.policy}";q={self.limit.amount};w={self.limit.get_expiry()}',
            "ratelimit": f'"{self.policy}";r={self.remaining};t={self.reset_seconds}',
        }


class Limiter:
    """Counts requests per policy and who makes them. A policy is `<number>/<second|minute|hour>`."""

    def __init__(self, policies: dict[str, str]) -> None:
        self._limits = {name: parse(text) for name, text in policies.items()}
        self._strategy = FixedWindowRateLimiter(MemoryStorage())

    async def take(self, policy: str, who: str) -> Allowance:
        """Count one request and return what is left, which may be a refusal."""
        limit = self._limits[policy]
        allowed = await self._strategy.hit(limit, policy, who)
        stats = await self._strategy.get_window_stats(limit, policy, who)
        reset_seconds = max(1, math.ceil(stats.reset_time - time.time()))
        return Allowance(policy, limit, max(0, stats.remaining), reset_seconds, allowed=allowed)
