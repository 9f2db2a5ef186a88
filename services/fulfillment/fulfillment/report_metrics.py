"""What the report that was finished last says, for alerts."""

from datetime import datetime

from prometheus_client import Gauge

from fulfillment.domain.reconciliation import Kind
from fulfillment.ports.reconciliation import Report

DIFFERENCES = Gauge(
    "keyferry_fulfillment_differences", "Differences of the report that was finished last, by kind.", ["kind"]
)
REPORT_AGE = Gauge("keyferry_fulfillment_report_age_seconds", "Since when the last report is finished.")
UNEXPLAINED = Gauge("keyferry_fulfillment_balance_unexplained_cents", "What explains nothing of the balance, in cents.")


def show(report: Report, now: datetime) -> None:
    """Show a finished report. Every kind has its value, so that an alert can tell none from unknown."""
    for kind in Kind:
        DIFFERENCES.labels(kind.value).set(report.differences.get(kind.value, 0))
    if report.finish_time is not None:
        REPORT_AGE.set((now - report.finish_time).total_seconds())
    if report.balance is not None:
        UNEXPLAINED.set(report.balance.unexplained)
