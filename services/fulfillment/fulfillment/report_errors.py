"""The reasons of reconciliation. What the operator does on each is told in docs/errors.md."""

import grpc
from chassis.errors import KeyferryError


class ReportNotFound(KeyferryError):
    """There is no such report."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "REPORT_NOT_FOUND"
