"""After all that went before, every entry of the audit log is one that its page promises."""

import re
from hashlib import sha256
from pathlib import Path

from tests.e2e.system import System

PAGE = Path(__file__).parents[2] / "docs" / "audit-events.md"
PURCHASE = {"external_id", "item_id", "product_id", "quantity", "attempt"}
REFUSALS = {"source", "count", "minute"}


def documented() -> dict[str, set[str]]:
    """Return the page's actions, each with the details that it names, and one without a name for the action itself."""
    actions = {}
    for row in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if re.fullmatch(r"`[a-z]+\.[a-z_]+`", cells[0]):
            details = set(re.findall(r"`([a-z_]+)`", cells[-1]))
            shared = (PURCHASE if "purchase*" in cells[-1] else set()) | (
                REFUSALS if "refusals*" in cells[-1] else set()
            )
            actions[cells[0].strip("`")] = {""} | details | shared
    return actions


async def test_each_entry_is_an_action_of_the_page_with_details_of_the_page(system: System) -> None:
    page = documented()
    entries = await system.audit_entries()
    assert {"payment.confirmed", "purchase.placed", "key.sealed", "mail.sent"} <= {entry.action for entry in entries}
    undocumented = {
        (entry.action, name)
        for entry in entries
        for name in ("", *entry.details)
        if name not in page.get(entry.action, ())
    }
    assert not undocumented


async def test_the_log_has_no_gap_and_each_leaf_is_the_hash_of_its_entry(system: System) -> None:
    entries = await system.audit_entries()
    assert [entry.sequence for entry in entries] == list(range(entries[0].sequence, entries[0].sequence + len(entries)))
    for entry in entries:
        assert sha256(b"\0" + entry.canonical_entry).digest() == entry.leaf_hash
