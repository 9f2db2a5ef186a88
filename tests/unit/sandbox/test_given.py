from pathlib import Path

import pytest
from sandbox.given import Given, GivenIncomplete

KINGUIN = {
    "KINGUIN_BASE": "https://gateway.sandbox.kinguin.net/esa/api",
    "KINGUIN_API_KEY": "key",
    "KINGUIN_WEBHOOK_SECRET": "secret",
}


def test_nothing_is_given_by_an_unrelated_environment() -> None:
    given = Given.read({"PATH": "/bin", "KINGUIN_API_KEY": "left over", "NATS_URL": ""})
    assert not given.values


def test_a_part_comes_with_what_it_needs() -> None:
    assert Given.read({**KINGUIN, "KINGUIN_AUTH": "bearer"}).values == {**KINGUIN, "KINGUIN_AUTH": "bearer"}


@pytest.mark.parametrize("missing", ["KINGUIN_API_KEY", "KINGUIN_WEBHOOK_SECRET"])
def test_a_part_without_what_it_needs_is_named(missing: str) -> None:
    environment = {name: value for name, value in KINGUIN.items() if name != missing}
    with pytest.raises(GivenIncomplete, match=missing):
        Given.read(environment)


def test_a_secret_may_come_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    environment = {**KINGUIN, "KINGUIN_API_KEY_FILE": str(tmp_path / "key")}
    assert Given.read(environment).get("KINGUIN_API_KEY") == "from a file"


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(GivenIncomplete, match="NATS_URL_FILE"):
        Given.read({"NATS_URL_FILE": "/nowhere/at/all"})
