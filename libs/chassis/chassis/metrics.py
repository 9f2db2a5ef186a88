"""Every metric of the chassis. A metric's label set is constant; a label is never a person, a key or an id.

A service declares its own in its `metrics.py`, in the same way.
"""

from prometheus_client import Counter, Gauge, Histogram

# Reaches from a health check (1 ms) to the longest unary deadline (30 s).
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RPC_SECONDS = Histogram(
    "keyferry_rpc_seconds",
    "How long served calls took, by method and status code.",
    ["method", "code"],
    buckets=LATENCY_BUCKETS,
)
EVENTS_PUBLISHED = Counter(
    "keyferry_events_published_total", "Events that JetStream has acknowledged, by subject.", ["subject"]
)
EVENTS_HANDLED = Counter(
    "keyferry_events_handled_total",
    "Events taken from a consumer, by what became of them: done, repeated, retried, ignored or dead.",
    ["consumer", "outcome"],
)
CONSUMER_STOPPED = Gauge(
    "keyferry_consumer_stopped",
    "1 while a consumer has stopped after a run of dead letters; a human must look.",
    ["consumer"],
)
DEAD_LETTERS_WAITING = Gauge(
    "keyferry_dead_letters_waiting", "Dead letters that nobody has replayed yet, as last counted.", ["consumer"]
)
DEAD_LETTER_AGE = Gauge(
    "keyferry_dead_letter_oldest_seconds",
    "How long the oldest dead letter has been waiting, as last counted; 0 when none waits.",
    ["consumer"],
)
OUTBOX_WAITING = Gauge(
    "keyferry_outbox_waiting", "Events committed and not yet acknowledged by JetStream, as last counted."
)
TASK_FAILURES = Counter(
    "keyferry_task_failures_total", "Background tasks that failed and were started again.", ["task"]
)
