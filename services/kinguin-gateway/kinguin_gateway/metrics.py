"""What kinguin-gateway counts, besides what the chassis does."""

from chassis.metrics import LATENCY_BUCKETS
from prometheus_client import Counter, Gauge, Histogram

SUPPLIER_SECONDS = Histogram(
    "keyferry_supplier_call_seconds",
    "How long calls of the supplier took, by operation and outcome: 2xx, 3xx, 4xx, 5xx or no answer.",
    ["operation", "outcome"],
    buckets=LATENCY_BUCKETS,
)
BREAKER_OPEN = Gauge(
    "keyferry_supplier_breaker_open", "1 while this replica holds calls back because nearly all of the last failed."
)
BUYING_PAUSED = Gauge(
    "keyferry_buying_paused",
    "1 for the cause that stops buying: operator, insufficient_balance or unauthorized; 0 for the others.",
    ["cause"],
)
PURCHASES_PARKED = Gauge("keyferry_purchases_parked", "Purchases that wait for buying to go on.")
DATABASE_FORGOT = Counter(
    "keyferry_database_forgot_total", "Times that the database came back as another: failed over, or restored."
)
PURCHASES = Counter(
    "keyferry_purchase_attempts_total",
    "Attempts to buy, by what they came to: placed, adopted, refused, parked, in_doubt, not_sent or absent.",
    ["outcome"],
)
SURPLUS_ORDERS = Counter(
    "keyferry_surplus_orders_total",
    "Supplier orders found beyond the one that a purchase keeps: bought too much, or not what was asked for.",
)
BALANCE_EUROS = Gauge("keyferry_balance_euros", "Money left on our account at the supplier, as last read.")
BALANCE_DAYS_LEFT = Gauge("keyferry_balance_days_left", "How many days it lasts at the pace of the last week.")
WEBHOOKS_TAKEN = Counter(
    "keyferry_webhooks_taken_total",
    "Webhooks by what came of them: hurried, unrelated, stale or ignored (a product that we never bought).",
    ["outcome"],
)
RETURNS = Counter(
    "keyferry_returns_total",
    "Returns of supplier orders, by how far they came: accepted, returned, refunded or refused.",
    ["state"],
)
UNMATCHED_KEYS = Counter(
    "keyferry_unmatched_keys_total", "Delivered keys that belong to no line we bought, and that were not sealed."
)
