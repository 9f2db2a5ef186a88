"""What kinguin-gateway counts, besides what the chassis does."""

from chassis.metrics import LATENCY_BUCKETS
from prometheus_client import Counter, Histogram

SUPPLIER_SECONDS = Histogram(
    "keyferry_supplier_call_seconds",
    "How long calls of the supplier took, by operation and outcome: 2xx, 3xx, 4xx, 5xx or no answer.",
    ["operation", "outcome"],
    buckets=LATENCY_BUCKETS,
)
PURCHASES = Counter(
    "keyferry_purchase_attempts_total",
    "Attempts to buy, by what they came to: placed, adopted, refused, in_doubt, not_sent or absent.",
    ["outcome"],
)
SURPLUS_ORDERS = Counter(
    "keyferry_surplus_orders_total",
    "Supplier orders found beyond the one that a purchase keeps: bought too much, or not what was asked for.",
)
UNMATCHED_KEYS = Counter(
    "keyferry_unmatched_keys_total", "Delivered keys that belong to no line we bought, and that were not sealed."
)
