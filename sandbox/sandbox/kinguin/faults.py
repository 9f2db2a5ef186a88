"""Bad days on demand: rules that say which requests go wrong, how, and how often. Deterministic by seed.

Rules live in memory: a restart heals the simulator. What they did to an order (hidden from searches, held, canceled,
delivered in parts) is part of that order and stays.
"""

import random
from collections.abc import Callable
from typing import Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sandbox.kinguin.plan import Circumstances
from sandbox.kinguin.problems import ProblemKind, Refusal
from sandbox.kinguin.rules import REFUSED, PlaceOrder

Operation = Literal[
    "getBalance", "getProduct", "searchProducts", "placeOrder", "getOrder", "searchOrders", "listKeys", "returnKeys"
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Action = Literal[
    "accept_duplicate_external_id",
    "cancel",
    "claim_on_fetch",
    "delay",
    "drop_answer",
    "hold",
    "insufficient_balance",
    "lock",
    "out_of_stock",
    "partial",
    "reset_before",
    "search_lag",
    "status",
    "webhooks",
]
WebhookMode = Literal["normal", "late", "twice", "shuffled", "forged", "never"]
Moment = Literal["before", "after"]

# Everything a rule may need beyond its action, and what the action does without it.
_NEEDED: dict[Action, tuple[str, ...]] = {
    "delay": ("seconds",),
    "search_lag": ("seconds",),
    "status": ("status",),
    "partial": ("keys",),
    "webhooks": ("mode",),
}
_MOST_RULES = 100
_LOCKED = 423
_WEBHOOK_SECONDS = {"late": 2.0, "shuffled": 0.5}


class Rule(BaseModel):
    """One kind of misbehaviour. Without `count` or `probability` it always applies, until it is deleted.

    `when` tells whether a `delay` or a `status` comes before the request is acted on or after it. `product_id` limits
    `out_of_stock` to one product. Other fields belong to the actions of the same name.
    """

    model_config = ConfigDict(extra="forbid")

    action: Action
    operation: Operation | Literal["*"] = "*"
    count: int | None = Field(default=None, ge=1)
    probability: float | None = Field(default=None, ge=0, le=1)
    seconds: float | None = Field(default=None, ge=0, le=86_400)
    status: int | None = Field(default=None, ge=400, le=599)
    kind: ProblemKind = "Error"
    retry_after: int | None = Field(default=None, ge=0)
    when: Moment = "before"
    keys: int | None = Field(default=None, ge=0)
    mode: WebhookMode | None = None
    product_id: str | None = None
    hits: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "Rule":
        missing = [name for name in _NEEDED.get(self.action, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.action} needs {', '.join(missing)}")
        return self

    @property
    def is_spent(self) -> bool:
        """Whether it has applied as often as it should."""
        return self.count is not None and self.hits >= self.count

    def refusal(self) -> Refusal:
        """Return the answer of a `status` rule."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        detail = "The supplier has a bad day."
        return Refusal(self.kind, self.status or 500, detail, headers=headers)


class Faults:
    """The rules, oldest first, and the luck that decides where a rule has a probability."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rules: list[Rule] = []
        self._luck = self._fresh_luck()

    def _fresh_luck(self) -> random.Random:
        return random.Random(f"{self._seed}/faults")  # noqa: S311 # no secret: the same seed shall give the same day

    def add(self, rules: list[Rule]) -> None:
        """Add rules; one about webhooks replaces those before it. Raises ValueError when there would be too many."""
        if any(rule.action == "webhooks" for rule in rules):
            self.delete("webhooks")
        if len(self._rules) + len(rules) > _MOST_RULES:
            raise ValueError(f"at most {_MOST_RULES} rules")
        self._rules += rules

    def delete(self, action: str) -> None:
        """Delete the rules of one action."""
        self._rules = [rule for rule in self._rules if rule.action != action]

    def clear(self) -> None:
        """Delete every rule and start the same luck again."""
        self._rules = []
        self._luck = self._fresh_luck()

    def as_json(self) -> list[JsonValue]:
        """Return the rules with how often each has applied."""
        return [cast("JsonValue", rule.model_dump(exclude_none=True)) for rule in self._rules]

    def take(
        self, action: Action, operation: Operation, fits: Callable[[Rule], bool] = lambda _rule: True
    ) -> Rule | None:
        """Return the first rule that applies now, and count that it did."""
        for rule in self._rules:
            if rule.action != action or rule.is_spent or rule.operation not in ("*", operation) or not fits(rule):
                continue
            if rule.probability is not None and self._luck.random() >= rule.probability:
                continue
            rule.hits += 1
            return rule
        return None

    def take_at(self, action: Action, operation: Operation, when: Moment) -> Rule | None:
        """Return the first rule that applies before, or after, the request is acted on."""
        return self.take(action, operation, lambda rule: rule.when == when)

    def refuse(self, operation: Operation) -> None:
        """Raise Refusal where a rule wants one before anybody looks at the request."""
        if (bad := self.take_at("status", operation, "before")) is not None:
            raise bad.refusal()
        if self.take("lock", operation) is not None:
            raise Refusal("ResourceLock", _LOCKED, "The resource is locked. Try again later.")

    def refuse_order(self, order: PlaceOrder) -> None:
        """Raise Refusal where a rule wants this order to find no stock or no money."""
        wanted = {line.product_id for line in order.lines}
        if self.take("out_of_stock", "placeOrder", lambda rule: rule.product_id is None or rule.product_id in wanted):
            raise Refusal("ProductUnavailable", REFUSED, "The product has been sold or is not active.")
        if self.take("insufficient_balance", "placeOrder"):
            raise Refusal("InsufficientBalance", REFUSED, "There are not enough funds to place the order.")

    def circumstances(self) -> Circumstances:
        """Return how the next order is to be treated."""
        lag = self.take("search_lag", "placeOrder")
        partial = self.take("partial", "placeOrder")
        return Circumstances(
            accept_duplicate=self.take("accept_duplicate_external_id", "placeOrder") is not None,
            search_lag_seconds=(lag.seconds or 0.0) if lag else 0.0,
            hold=self.take("hold", "placeOrder") is not None,
            cancel=self.take("cancel", "placeOrder") is not None,
            first_keys=partial.keys if partial else None,
            rest_seconds=partial.seconds if partial else None,
        )

    def claims_on_fetch(self) -> bool:
        """Tell whether downloading keys claims them, so that they cannot go back (K50)."""
        return self.take("claim_on_fetch", "listKeys") is not None

    def webhook_mode(self) -> tuple[WebhookMode, float]:
        """Return how the next webhook is sent, and the seconds that belong to it."""
        rule = next((rule for rule in self._rules if rule.action == "webhooks" and not rule.is_spent), None)
        if rule is None or (rule.probability is not None and self._luck.random() >= rule.probability):
            return "normal", 0.0
        rule.hits += 1
        mode = rule.mode or "normal"
        return mode, rule.seconds if rule.seconds is not None else _WEBHOOK_SECONDS.get(mode, 0.0)
