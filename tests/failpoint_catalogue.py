"""The names of all failpoints, read from the source: what docs/failpoints.md lists and what tests may plan.

`python -m tests.failpoint_catalogue` writes the page anew.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "failpoints.md"
FOLDERS = {
    "audit": ROOT / "services" / "audit" / "audit",
    "chassis": ROOT / "libs" / "chassis" / "chassis",
    "fulfillment": ROOT / "services" / "fulfillment" / "fulfillment",
    "gateway": ROOT / "gateway" / "gateway",
    "kinguin-gateway": ROOT / "services" / "kinguin-gateway" / "kinguin_gateway",
    "vault": ROOT / "services" / "vault" / "vault",
}
# Parts that are neither checked nor listed yet. Empty when all is in place.
LEFT_OUT: frozenset[str] = frozenset()
# They make names out of what they are given.
_MACHINERY = frozenset({FOLDERS["chassis"] / "failpoints.py", FOLDERS["chassis"] / "database.py"})

_HEAD = """\
# Failpoints

Named places around every commit, call, publishing, put and mail, where a test makes a process die, fail or wait; and
effects that a test has done twice. `KEYFERRY_FAILPOINTS` plans them (see `chassis/failpoints.py`); it is empty in
production, it is read once when a process starts, and a running process has no switch for it.

This page is written by `python -m tests.failpoint_catalogue`; a test compares it with the code, and another refuses an
effect that has no failpoints around it.

| name | actions | where |
|---|---|---|
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Applied(ast.NodeTransformer):
    """Reads `partial(act, …)` as `act(…)`: what will be called is called."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if called(node) == "partial" and node.args:
            return ast.copy_location(ast.Call(node.args[0], node.args[1:], node.keywords), node)
        return node


@dataclass(frozen=True, slots=True)
class Module:
    """One source file, with each node's parent."""

    part: str
    path: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST]
    calls: Sequence[ast.Call]

    @classmethod
    def of(cls, part: str, path: str, source: str) -> "Module":
        tree = _Applied().visit(ast.parse(source))
        nodes = list(ast.walk(tree))
        parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        return cls(part, path, tree, parents, [node for node in nodes if isinstance(node, ast.Call)])

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what a node stands in, from the inside out."""
        while (found := self.parents.get(node)) is not None:
            yield found
            node = found

    def function_of(self, node: ast.AST) -> Function | None:
        """Return the function that a node stands in."""
        return next((outer for outer in self.around(node) if isinstance(outer, Function)), None)

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """Return the class that a node stands in."""
        return next((outer for outer in self.around(node) if isinstance(outer, ast.ClassDef)), None)


@dataclass(frozen=True, slots=True, order=True)
class Failpoint:
    """A place where a process may die, fail or wait, or an effect that may be repeated."""

    name: str
    repeatable: bool
    path: str


def read_modules(parts: Iterable[str]) -> list[Module]:
    """Return the source of some parts."""
    return [
        Module.of(part, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for part in parts
        for path in sorted(FOLDERS[part].rglob("*.py"))
        if path not in _MACHINERY
    ]


def called(call: ast.Call) -> str:
    """Return the last word of what is called."""
    return word(call.func)


def word(node: ast.AST) -> str:
    """Return the last word of a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def receiver(call: ast.Call) -> str:
    """Return the last word of what a method is called on."""
    return word(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def is_of_database(call: ast.Call) -> bool:
    """Tell whether this begins a transaction of the chassis."""
    return called(call) == "transaction" and receiver(call) in {"_database", "database"}


def find_failpoints(modules: Sequence[Module]) -> list[Failpoint]:
    """Return every failpoint that the modules name."""
    found: set[Failpoint] = set()
    for module in modules:
        for call in module.calls:
            if not call.args:
                continue
            for name in _texts(call.args[0], call, module, modules) if _names_one(call) else ():
                area, _, step = name.rpartition(".")
                if called(call) == "failpoint":
                    found.add(Failpoint(name, repeatable=False, path=module.path))
                if called(call) in {"effect", "repeatable"}:
                    found.add(Failpoint(name, repeatable=True, path=module.path))
                if called(call) == "effect":
                    places = (f"{area}.before_{step}", f"{area}.after_{step}")
                    found |= {Failpoint(place, repeatable=False, path=module.path) for place in places}
                if called(call) == "transaction":
                    places = (f"{name}.before_commit", f"{name}.after_commit")
                    found |= {Failpoint(place, repeatable=False, path=module.path) for place in places}
    return sorted(found)


def _names_one(call: ast.Call) -> bool:
    return is_of_database(call) or (
        isinstance(call.func, ast.Name) and call.func.id in {"failpoint", "effect", "repeatable"}
    )


def _texts(node: ast.expr, at: ast.AST, module: Module, modules: Sequence[Module]) -> list[str]:
    """Return everything that a name may be: itself, or put together of what a function's callers give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        pieces = [
            _texts(piece.value if isinstance(piece, ast.FormattedValue) else piece, at, module, modules)
            for piece in node.values
        ]
        return ["".join(chosen) for chosen in product(*pieces)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        # `step and f"area.{step}"`: without a step there is no name.
        return _texts(node.values[-1], at, module, modules)
    function = module.function_of(at)
    if not isinstance(node, ast.Name) or function is None:
        raise ValueError(f"{module.path}:{at.lineno}: the failpoint's name is no text")  # type: ignore[attr-defined] # calls have lines
    return _given(node.id, function, module, modules)


def _given(parameter: str, function: Function, module: Module, modules: Sequence[Module]) -> list[str]:
    parameters = [each.arg for each in function.args.args if each.arg != "self"]
    if parameter not in parameters:
        raise ValueError(f"{module.path}:{function.lineno}: {parameter} is no parameter")
    place = parameters.index(parameter)
    found: list[str] = []
    for calls in (own_calls, port_calls):
        for other, call in calls(function, module, modules):
            if len(call.args) > place:
                found += _texts(call.args[place], call, other, modules)
    return found


def own_calls(function: Function, module: Module, modules: Sequence[Module]) -> Iterator[tuple[Module, ast.Call]]:
    """Yield a function's calls in its part; of a method those on `self`, by its class and what derives of it."""
    owner = module.class_of(function)
    for other in modules:
        for call in other.calls if other.part == module.part else ():
            if called(call) != function.name:
                continue
            if owner is None and isinstance(call.func, ast.Name):
                yield other, call
            caller = other.class_of(call)
            if owner is None or caller is None or receiver(call) != "self":
                continue
            if owner.name in {caller.name, *(word(base) for base in caller.bases)}:
                yield other, call


def port_calls(function: Function, module: Module, modules: Sequence[Module]) -> Iterator[tuple[Module, ast.Call]]:
    """Yield a method's calls through a port in its part: what is kept as `_orders` is of the class `PostgresOrders`."""
    owner = module.class_of(function)
    for other in modules:
        for call in other.calls if owner is not None and other.part == module.part else ():
            if called(call) == function.name and is_kept_as(receiver(call), owner):
                yield other, call


def is_kept_as(name: str, owner: ast.ClassDef | None) -> bool:
    """Tell whether objects of a class are kept under a name: under the last word of the class's."""
    words = re.findall("[A-Z][a-z0-9]*", owner.name) if owner is not None else []
    return bool(words) and words[-1].lower() == name.strip("_")


def page(failpoints: Sequence[Failpoint]) -> str:
    """Return the page."""
    rows = [
        f"| `{each.name}` | {'repeat' if each.repeatable else 'crash, error, delay'} | `{each.path}` |"
        for each in failpoints
    ]
    return _HEAD + "".join(f"{row}\n" for row in rows)


def listed_parts() -> list[str]:
    """Return the parts that are checked and listed."""
    return [part for part in FOLDERS if part not in LEFT_OUT]


if __name__ == "__main__":
    PAGE.write_text(page(find_failpoints(read_modules(listed_parts()))), encoding="utf-8")
