"""What the edge counts. No label is ever a person, a key or an id."""

from chassis.metrics import LATENCY_BUCKETS
from prometheus_client import Counter, Gauge, Histogram

HTTP_SECONDS = Histogram(
    "keyferry_http_seconds",
    "How long answers took to begin, by method, route template and status.",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)
STREAMS_OPEN = Gauge("keyferry_http_streams_open", "Event streams that are open now.")
WEBHOOKS = Counter(
    "keyferry_webhooks_total",
    "Webhooks of the supplier by outcome: stored, ignored, refused or malformed.",
    ["outcome"],
)
