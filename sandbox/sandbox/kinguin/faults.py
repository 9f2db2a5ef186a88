"""Bad days on demand: decides which requests go wrong, how, and how often. Deterministic by seed.

Rules live in memory: a restart heals the simulator. What they did to an order (hidden from searches, held, canceled,
delivered in parts, taken late) is part of that order and stays.
"""

import random
from collections.abc import Callable
from typing import Literal

from sandbox.kinguin.mischief import Action, Moment, Operation, Rule, WebhookMode
from sandbox.kinguin.plan import Circumstances, Flaps
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import REFUSED, PlaceOrder

_MOST_RULES = 100
_LOCKED = 423
_FORBIDDEN = 403
# Of these there is one at most: a new one replaces the one before.
_SINGLE: tuple[Action, ...] = ("webhooks", "calls_per_second", "disable_webhooks", "order_complete")
_WEBHOOK_SECONDS = {"late": 2.0, "shuffled": 0.5, "stale": 1.0}
_FLAP_SECONDS = 1.0
# The real number is not published; a shop that was down for a minute shall not have to ask for its webhooks again.
_MOST_FAILED_WEBHOOKS = 1000


class Faults:
    """The rules, oldest first, and the luck that decides where a rule has a probability."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rules: list[Rule] = []
        self._luck = self._fresh_luck()

    def _fresh_luck(self) -> random.Random:
        return random.Random(f"{self._seed}/faults")  # noqa: S311 # no secret: the same seed shall give the same day

    def add(self, rules: list[Rule]) -> None:
        """Add rules; of some actions the last rule holds alone. Raises ValueError when there would be too many."""
        replaced = {rule.action for rule in rules}.intersection(_SINGLE)
        kept = [rule for rule in self._rules if rule.action not in replaced]
        if len(kept) + len(rules) > _MOST_RULES:
            raise ValueError(f"at most {_MOST_RULES} rules")
        self._rules = kept + rules

    def delete(self, action: str) -> None:
        """Delete the rules of one action."""
        self._rules = [rule for rule in self._rules if rule.action != action]

    def clear(self) -> None:
        """Delete every rule and start the same luck again."""
        self._rules = []
        self._luck = self._fresh_luck()

    def as_json(self) -> list[dict[str, object]]:
        """Return the rules with how often each has applied."""
        return [rule.as_json() for rule in self._rules]

    def standing(self, action: Action, operation: Operation | None = None) -> Rule | None:
        """Return the first rule of an action that is not spent, without counting that it applied."""
        fits = ("*", operation)
        return next(
            (
                rule
                for rule in self._rules
                if rule.action == action and not rule.is_spent and (operation is None or rule.operation in fits)
            ),
            None,
        )

    def take(
        self, action: Action, operation: Operation, fits: Callable[[Rule], bool] = lambda _rule: True
    ) -> Rule | None:
        """Return the first rule that applies now, and count that it did."""
        for rule in self._rules:
            if rule.action != action or rule.is_spent or rule.operation not in ("*", operation) or not fits(rule):
                continue
            if not self._is_lucky(rule):
                continue
            rule.hits += 1
            return rule
        return None

    def _is_lucky(self, rule: Rule) -> bool:
        return rule.probability is None or self._luck.random() < rule.probability

    def take_at(self, action: Action, operation: Operation, when: Moment) -> Rule | None:
        """Return the first rule that applies before, or after, the request is acted on."""
        return self.take(action, operation, lambda rule: rule.when == when)

    def refuse(self, operation: Operation) -> None:
        """Raise Refusal where a rule wants one before anybody looks at the request."""
        if (block := self.take("block_address", operation)) is not None:
            raise Refusal(block.kind or "Http", _FORBIDDEN, "Access from this address is not allowed.")  # K6
        if (bad := self.take_at("status", operation, "before")) is not None:
            raise bad.refusal()
        if self.take("lock", operation) is not None:
            raise Refusal("ResourceLock", _LOCKED, "The resource is locked. Try again later.")

    def refuse_order(self, order: PlaceOrder) -> None:
        """Raise Refusal where a rule wants this order to find no stock, no money or no billing address."""
        wanted = {line.product_id for line in order.lines}
        if self.take("no_billing_address", "placeOrder"):
            raise Refusal("OrderFailed", REFUSED, "The account has no default billing address.")  # K4
        if self.take("out_of_stock", "placeOrder", lambda rule: rule.product_id is None or rule.product_id in wanted):
            raise Refusal("ProductUnavailable", REFUSED, "The product has been sold or is not active.")
        if self.take("insufficient_balance", "placeOrder"):
            raise Refusal("InsufficientBalance", REFUSED, "There are not enough funds to place the order.")

    def circumstances(self) -> Circumstances:
        """Return how the next order is to be treated."""
        lag = self.take("search_lag", "placeOrder")
        partial = self.take("partial", "placeOrder")
        charge = self.take("charge_differs", "placeOrder")
        twin = self.take("serial_twice", "placeOrder")
        flap = self.take("flap", "placeOrder")
        return Circumstances(
            accept_duplicate=self.take("accept_duplicate_external_id", "placeOrder") is not None,
            search_lag_seconds=(lag.seconds or 0.0) if lag else 0.0,
            hold=self.take("hold", "placeOrder") is not None,
            cancel=self.take("cancel", "placeOrder") is not None,
            first_keys=partial.keys if partial else None,
            rest_seconds=partial.seconds if partial else None,
            charge=str(charge.amount) if charge else "0",
            twin=twin.scope if twin else None,
            flaps=_flaps(flap) if flap else None,
        )

    def return_delays(self) -> tuple[float, float]:
        """Return how much later than usual the next return is done, and is paid back after it was done."""
        returned, refunded = self.take("return_late", "returnKeys"), self.take("refund_late", "returnKeys")
        return (returned.seconds or 0.0) if returned else 0.0, (refunded.seconds or 0.0) if refunded else 0.0

    def claims_on_fetch(self) -> bool:
        """Tell whether downloading keys claims them, so that they cannot go back (K50)."""
        return self.take("claim_on_fetch", "listKeys") is not None

    def webhook_mode(self) -> tuple[WebhookMode, float]:
        """Return how the next webhook is sent, and the seconds that belong to it."""
        rule = self.standing("webhooks")
        if rule is None or not self._is_lucky(rule):
            return "normal", 0.0
        rule.hits += 1
        mode = rule.mode or "normal"
        return mode, rule.seconds if rule.seconds is not None else _WEBHOOK_SECONDS.get(mode, 0.0)

    def order_complete(self) -> Literal["besides", "instead"] | None:
        """Tell whether the next completed order is told as older stores are told, besides or instead."""
        rule = self.standing("order_complete")
        if rule is None or not self._is_lucky(rule):
            return None
        rule.hits += 1
        return "instead" if rule.instead else "besides"

    def wants_product_updates(self) -> bool:
        """Tell whether the next change of stock is told."""
        rule = self.standing("product_updates")
        if rule is None or not self._is_lucky(rule):
            return False
        rule.hits += 1
        return True

    def most_failed_webhooks(self) -> int:
        """Return after how many failed deliveries in a row the endpoint is disabled (K58)."""
        rule = self.standing("disable_webhooks")
        return _MOST_FAILED_WEBHOOKS if rule is None or rule.limit is None else rule.limit


def _flaps(rule: Rule) -> Flaps:
    return Flaps(rule.rounds, _FLAP_SECONDS if rule.seconds is None else rule.seconds, rule.word)
