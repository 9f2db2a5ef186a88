"""What is written down must be what is there: reasons, settings, words, access lists."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from chassis.errors import KeyferryError, RemoteError
from chassis.settings import ServiceSettings
from keyferry.audit.v1 import audit_service_pb2
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2, fulfillment_service_pb2
from keyferry.kinguin.v1 import kinguin_service_pb2
from keyferry.vault.v1 import vault_service_pb2

ROOT = Path(__file__).parents[3]
PARTS = ("audit", "fulfillment", "gateway", "kinguin_gateway", "vault")
CONTRACTS = {
    "audit": [audit_service_pb2.DESCRIPTOR],
    "fulfillment": [fulfillment_service_pb2.DESCRIPTOR, fulfillment_admin_service_pb2.DESCRIPTOR],
    "kinguin_gateway": [kinguin_service_pb2.DESCRIPTOR],
    "vault": [vault_service_pb2.DESCRIPTOR],
}


def all_error_classes() -> list[type[KeyferryError]]:
    for part in (*PARTS, "chassis"):
        package = importlib.import_module(part)
        for module in pkgutil.walk_packages(package.__path__, f"{part}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: list[type[KeyferryError]] = [KeyferryError]
    for known in found:
        found += known.__subclasses__()
    return [
        known for known in found if known is not RemoteError and known.__module__.split(".")[0] in (*PARTS, "chassis")
    ]


def test_every_reason_has_its_row_in_the_errors_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)`", page, flags=re.MULTILINE))
    missing = {known.reason for known in all_error_classes()} - documented
    assert not missing


def test_reasons_are_upper_snake_and_short() -> None:
    for known in all_error_classes():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,62}", known.reason), known


def test_the_example_environment_lists_every_setting() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    listed = {match.group(1) for line in lines if (match := re.match(r"#? ?([A-Z][A-Z0-9_]+)=", line))}
    declared: set[str] = set()
    for part in PARTS:
        settings = importlib.import_module(f"{part}.config").Settings
        assert issubclass(settings, ServiceSettings)
        declared |= settings.variables().keys()
    assert listed == declared


@pytest.mark.parametrize("part", CONTRACTS)
def test_every_method_is_in_its_access_list_and_nothing_else(part: str) -> None:
    access = importlib.import_module(f"{part}.access").ACCESS
    services = [service for contract in CONTRACTS[part] for service in contract.services_by_name.values()]
    methods = {name for service in services for name in service.methods_by_name}
    assert access.keys() == methods
    assert all(callers for callers in access.values()), "a method that nobody may call should not exist"


def test_the_chassis_names_nothing_of_the_domain() -> None:
    words = re.compile(r"(kinguin|\border|offer|game|fulfil|purchase|customer)", re.IGNORECASE)
    for path in sorted((ROOT / "libs" / "chassis").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # A keyword or an attribute may be a library's word, such as `order_by`.
            if not isinstance(node, ast.keyword):
                name = getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "arg", None)
                assert not (isinstance(name, str) and words.search(name)), f"{path.name}: {name}"
