"""What can be told to go wrong: the rules of the control port, each with the fields that it knows.

Pure data. `faults.py` decides when a rule applies; README.md tells what each does.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sandbox.kinguin.garbling import BodyShape
from sandbox.kinguin.problems import ProblemKind, Refusal

Operation = Literal[
    "getBalance", "getProduct", "searchProducts", "placeOrder", "getOrder", "searchOrders", "listKeys", "returnKeys"
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Action = Literal[
    "accept_duplicate_external_id",
    "block_address",
    "broken_picture",
    "calls_per_second",
    "cancel",
    "charge_differs",
    "claim_on_fetch",
    "commit_late",
    "delay",
    "disable_webhooks",
    "drip",
    "drop_answer",
    "flap",
    "foreign_key",
    "garble",
    "hold",
    "insufficient_balance",
    "lock",
    "no_billing_address",
    "order_complete",
    "out_of_stock",
    "pages_long",
    "pages_overlap",
    "pages_short",
    "partial",
    "payment_price_text",
    "product_updates",
    "refund_late",
    "reset_before",
    "return_late",
    "search_lag",
    "serial_twice",
    "status",
    "unknown_type",
    "webhooks",
]
PageAction = Literal["pages_short", "pages_long", "pages_overlap"]
PAGE_ACTIONS: tuple[PageAction, ...] = get_args(PageAction)
WebhookMode = Literal["normal", "late", "twice", "shuffled", "forged", "stale", "never"]
Moment = Literal["before", "after"]
TwinScope = Literal["order", "orders"]

_COMMON = frozenset({"action", "operation", "count", "probability", "hits"})
# Needed fields first, then those that an action knows besides. What is not here knows the common ones only.
_FIELDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    action: (frozenset(needed.split()), frozenset(known.split()))
    for action, needed, known in (
        ("block_address", "", "kind"),
        ("calls_per_second", "limit", "strikes seconds retry_after"),
        ("charge_differs", "amount", ""),
        ("commit_late", "seconds", ""),
        ("delay", "seconds", "when"),
        ("disable_webhooks", "limit", ""),
        ("drip", "seconds", ""),
        ("flap", "", "seconds rounds word"),
        ("garble", "body", ""),
        ("order_complete", "", "instead"),
        ("out_of_stock", "", "product_id"),
        ("pages_long", "", "keys"),
        ("pages_overlap", "", "keys"),
        ("pages_short", "", "keys"),
        ("partial", "keys", "seconds"),
        ("refund_late", "seconds", ""),
        ("return_late", "seconds", ""),
        ("search_lag", "seconds", ""),
        ("serial_twice", "", "scope"),
        ("status", "status", "kind retry_after when body"),
        ("unknown_type", "", "type"),
        ("webhooks", "mode", "seconds"),
    )
}
_BODILESS = 304
_NONE: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

_Text = Annotated[str, Field(min_length=1, max_length=100)]
_Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Rule(BaseModel):
    """One kind of misbehaviour. Without `count` or `probability` it always applies, until it is deleted.

    `when` tells whether a `delay` or a `status` comes before the request is acted on or after it. Every other field
    belongs to certain actions only, and is refused with any other.
    """

    model_config = ConfigDict(extra="forbid")

    action: Action
    operation: Operation | Literal["*"] = "*"
    count: int | None = Field(default=None, ge=1)
    probability: float | None = Field(default=None, ge=0, le=1)
    seconds: _Seconds | None = None
    status: int | None = Field(default=None, ge=300, le=599)
    kind: ProblemKind | None = None
    retry_after: int | None = Field(default=None, ge=0)
    when: Moment = "before"
    body: BodyShape | None = None
    keys: int | None = Field(default=None, ge=0, le=1000)
    limit: int | None = Field(default=None, ge=1)
    strikes: int = Field(default=10, ge=0)
    amount: Annotated[Decimal, Field(max_digits=12, decimal_places=2)] | None = None
    rounds: int = Field(default=1, ge=1, le=100)
    word: _Text = "processing"
    scope: TwinScope = "order"
    type: _Text = "application/pdf"
    instead: bool = False
    mode: WebhookMode | None = None
    product_id: str | None = None
    hits: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed, known = _FIELDS.get(self.action, _NONE)
        if missing := sorted(name for name in needed if getattr(self, name) is None):
            raise ValueError(f"{self.action} needs {', '.join(missing)}")
        if unknown := sorted(self.model_fields_set - _COMMON - needed - known):
            raise ValueError(f"{self.action} knows no {', '.join(unknown)}")
        if self.status == _BODILESS:
            raise ValueError("an answer with 304 has no body to tell a failure in")
        return self

    @property
    def is_spent(self) -> bool:
        """Whether it has applied as often as it should."""
        return self.count is not None and self.hits >= self.count

    def refusal(self) -> Refusal:
        """Return the answer of a `status` rule."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        detail = "The supplier has a bad day."
        return Refusal(self.kind or "Error", self.status or 500, detail, headers=headers, shape=self.body)

    def as_json(self) -> dict[str, object]:
        """Return the rule as it was given, and how often it has applied."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return {**given, "operation": self.operation, "hits": self.hits}
