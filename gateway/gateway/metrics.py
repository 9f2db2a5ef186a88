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
    "Webhooks of the supplier by outcome: stored, probe, ignored, refused or malformed.",
    ["outcome"],
)
# The supplier switches off an endpoint that failed too often and tells it by mail only (K58): alert on silence. The
# probe does not count, so that trying the endpoint by hand ends no alert.
WEBHOOK_LAST_TAKEN = Gauge(
    "keyferry_webhook_last_taken_timestamp_seconds",
    "Unix time at which this replica last stored a webhook of the supplier; 0 until the first. Take the maximum over "
    "replicas and over time.",
)
FACTS_WAITING = Gauge(
    "keyferry_edge_facts_waiting", "Facts that this replica could not tell the audit log yet; lost if it dies."
)
FACTS_DROPPED = Counter(
    "keyferry_edge_facts_dropped_total", "Facts that the audit log was never told, because too many waited."
)
