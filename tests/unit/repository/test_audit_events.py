"""Every action that the code tells the audit log stands in its page, told by whom the page says, and no other does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from kinguin_gateway.domain.webhook import ABOUT_ORDERS
from vault.ports import Release

from tests.failpoint_catalogue import FOLDERS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "audit-events.md"
RECORDERS = {"gateway": "edge"}
# The chassis tells for each service that has a database.
CHASSIS_TELLS = {"settings.changed": {"audit", "fulfillment", "kinguin-gateway", "vault"}}
# Words of this form that are no actions: names of failpoints, paths of fields, and events of the supplier.
OTHERS_ARE_NAMED_BY = frozenset(
    {"add", "effect", "failpoint", "identifier", "repeatable", "require", "transaction", "_amount", "_moment", "of"}
)
OTHER_WORDS = ABOUT_ORDERS
FILE_ENDINGS = (".html", ".txt", ".css", ".js")
_ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+")


def documented() -> dict[str, set[str]]:
    """Return each action of the page, and who tells it."""
    found: dict[str, set[str]] = {}
    for row in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for name in re.findall(r"`([^`]+)`", cells[0]) if row.startswith("| `") else ():
            assert name not in found, f"{name} stands there twice"
            found[name] = set(re.findall(r"edge|fulfillment|kinguin-gateway|vault|audit", cells[3]))
    return found


def literals(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module that have the form of an action and do not name something else."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in OTHERS_ARE_NAMED_BY:
                skipped |= {argument for argument in node.args if isinstance(argument, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            text = node.value
            if _ACTION.fullmatch(text) and text not in OTHER_WORDS and not text.endswith(FILE_ENDINGS):
                yield text


def told(nouns: set[str]) -> dict[str, set[str]]:
    """Return each action of the code that is about one of these nouns, and who tells it."""
    found: dict[str, set[str]] = {}
    for part, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            for text in literals(ast.parse(path.read_text(encoding="utf-8"))):
                if text.partition(".")[0] in nouns:
                    by = CHASSIS_TELLS.get(text, {part}) if part == "chassis" else {RECORDERS.get(part, part)}
                    found.setdefault(text, set()).update(by)
    # What becomes of a release is told by one function for all of its kinds.
    for release in Release:
        found.pop(release.value, None)
        found |= {f"{release.value}_{end}": {"vault"} for end in ("authorized", "released", "failed")}
    return found


def test_the_page_and_the_code_name_the_same_actions_told_by_the_same_parts() -> None:
    page = documented()
    code = told({action.partition(".")[0] for action in page})
    assert code.keys() - page.keys() == set(), "told, but not in docs/audit-events.md"
    assert page.keys() - code.keys() == set(), "in docs/audit-events.md, but never told"
    assert {action: by for action, by in page.items() if by != code[action]} == {}


def test_every_action_is_one_that_audit_takes() -> None:
    for action in documented():
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", action)
        assert len(action) <= 64
