"""What fulfillment counts."""

from prometheus_client import Counter, Gauge

MAILS = Counter("keyferry_fulfillment_mails_total", "Mails handed to the mail server, by its answer.", ["outcome"])
NOTICES = Counter(
    "keyferry_fulfillment_access_notices_total", "Notices of unusual access handed to the mail server.", ["outcome"]
)
ACCESS_DENIED = Counter("keyferry_fulfillment_access_denied_total", "Requests for somebody else's order.", ["method"])
WATCHERS = Gauge("keyferry_fulfillment_watchers", "Streams that watch an order now.")
UNREADABLE = Counter(
    "keyferry_fulfillment_unreadable_total",
    "Rows that could not be worked on as they are, by what they are of: each needs a person.",
    ["of"],
)
UNMATCHED = Gauge("keyferry_fulfillment_unmatched", "Payments without an order, and refunds without either.", ["kind"])
UNMATCHED_AGE = Gauge("keyferry_fulfillment_unmatched_age_seconds", "Age of the oldest payment or refund of those.")
