"""Every rule of docs/kinguin.md has a test that bears its number, on our side and in the simulator."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
RULES = REPOSITORY / "docs" / "kinguin.md"
NUMBERS = range(1, 66)
_ROW = re.compile(r"^\| K(?P<number>\d+) \|(?P<holds>[^|]+)\|(?P<ours>[^|]+)\|(?P<only>[^|]*)\|$", re.MULTILINE)
_TEST = re.compile(r"def test_(?P<numbers>(?:k\d+_)+)")


def rows() -> list[re.Match[str]]:
    return list(_ROW.finditer(RULES.read_text(encoding="utf-8")))


def numbers_in(files: Iterator[Path]) -> set[int]:
    return {
        int(number)
        for file in files
        for test in _TEST.finditer(file.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", test["numbers"])
    }


def is_of_the_simulator(file: Path) -> bool:
    return "sandbox_kinguin" in file.parts or file.name.startswith("test_kinguin_simulator")


def files_of(*, of_the_simulator: bool) -> Iterator[Path]:
    files = (REPOSITORY / "tests").rglob("test_*.py")
    return (file for file in files if is_of_the_simulator(file) is of_the_simulator)


def one_sided(side: str) -> set[int]:
    return {int(row["number"]) for row in rows() if row["only"].strip().startswith(side)}


def test_the_page_tells_every_rule_once_and_in_order() -> None:
    assert [int(row["number"]) for row in rows()] == list(NUMBERS)


def test_every_rule_is_tested_on_our_side() -> None:
    assert set(NUMBERS) - numbers_in(files_of(of_the_simulator=False)) - one_sided("simulator:") == set()


def test_every_rule_is_tested_in_the_simulator() -> None:
    assert set(NUMBERS) - numbers_in(files_of(of_the_simulator=True)) - one_sided("ours:") == set()
