import uuid

import pytest
from chassis.errors import InvalidRequest
from chassis.validation import Faults


def faults_of(faults: Faults) -> list[str]:
    with pytest.raises(InvalidRequest) as raised:
        faults.raise_if_any()
    return [violation.field for violation in raised.value.field_violations]


def test_no_fault_raises_nothing() -> None:
    faults = Faults()
    assert faults.require("a", "x") == "x"
    assert faults.identifier("b", "A-z_0.9") == "A-z_0.9"
    faults.raise_if_any()


def test_every_fault_is_collected_in_order() -> None:
    faults = Faults()
    faults.require("empty", "")
    faults.require("long", "x" * 256)
    faults.require("longer", "xxx", longest=2)
    faults.require("nul", "a\x00b")
    faults.require("line", "a\nb")
    faults.identifier("odd", "a b")
    faults.identifier("newline", "a\n")
    faults.identifier("none", "")
    faults.identifier("endless", "a" * 65)
    faults.add("own", "must be otherwise")
    assert faults_of(faults) == ["empty", "long", "longer", "nul", "line", "odd", "newline", "none", "endless", "own"]


@pytest.mark.parametrize(
    "form", [str, lambda value: str(value).upper(), lambda value: value.hex, lambda value: value.urn]
)
def test_a_request_id_has_one_form(form: object) -> None:
    request_id = uuid.uuid4()
    assert callable(form)
    assert Faults().request_id(form(request_id)) == str(request_id)


@pytest.mark.parametrize("value", ["", "one", "123", "6ba7b810-9dad-11d1-80b4-00c04fd430cg"])
def test_a_request_id_that_is_no_uuid_is_a_fault(value: str) -> None:
    faults = Faults()
    faults.request_id(value)
    assert faults_of(faults) == ["request_id"]
