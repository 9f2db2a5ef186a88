"""What import rules cannot say: a domain knows the standard library and itself."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOMAINS = sorted([*ROOT.glob("services/*/*/domain"), *ROOT.glob("gateway/*/domain")])


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda path: path.parent.name)
def test_a_domain_knows_the_standard_library_and_itself(domain: Path) -> None:
    own = f"{domain.parent.name}.domain"
    for path in sorted(domain.rglob("*.py")):
        strangers = {
            name
            for name in imported(path)
            if name.split(".")[0] not in sys.stdlib_module_names and not (name == own or name.startswith(f"{own}."))
        }
        assert not strangers, f"{path.name} imports {strangers}"


def test_every_part_has_a_domain() -> None:
    assert [domain.parent.name for domain in DOMAINS] == ["gateway", "audit", "fulfillment", "kinguin_gateway", "vault"]
