"""Differences as CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Sequence

from fulfillment.domain.reconciliation import fix_of
from fulfillment.ports.reconciliation import Difference

COLUMNS = (
    "kind",
    "order_id",
    "external_id",
    "supplier_order_id",
    "key_id",
    "payment_id",
    "expected",
    "found",
    "fix",
    "mended",
)
# What a spreadsheet takes for a formula; ids come from shops and providers.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def header() -> bytes:
    """Return the first line."""
    return _lines([COLUMNS])


def lines(differences: Sequence[Difference]) -> bytes:
    """Return one line for each difference."""
    return _lines(
        [
            (
                str(each.kind),
                each.order_id,
                each.external_id,
                each.supplier_order_id,
                each.key_id,
                each.payment_id,
                each.expected,
                each.found,
                fix_of(each.kind, each.found).value,
                "true" if each.mended else "false",
            )
            for each in differences
        ]
    )


def _lines(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
