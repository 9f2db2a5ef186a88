"""Every effect has failpoints around it. The rules that say what an effect is come first.

An effect is covered by a pair of its own, `x.before_y` and `x.after_y`, that stands around it in its function, or by
`effect("x.y", …)`; a commit also by its name in `transaction("x")`. Where its function has none, every caller of that
function in the part must have.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.failpoint_catalogue import (
    PAGE,
    Function,
    Module,
    called,
    find_failpoints,
    is_kept_as,
    is_of_database,
    listed_parts,
    own_calls,
    page,
    read_modules,
    receiver,
)

# A call of another service: a method in CamelCase on an attribute that ends in `stub` or bears a service's name.
# Reading changes nothing there.
STUB = re.compile(r".*stub|_kinguin|_vault")
RPC = re.compile(r"[A-Z]\w*")
READING_RPC = re.compile(r"(Get|List|Watch|Search|Check)[A-Z]\w*")
# An event given to JetStream.
PUBLISHERS = {"publisher", "_publisher", "_stream"}
# What publishes for others: it is they who must have failpoints, and the rule above finds them.
PUBLISHER = "Publisher"
PUBLISHING = {"publish", "publish_event"}
# An object written, changed or removed.
OBJECT_STORE = "obstore"
STORING = re.compile(r"(put|delete|copy|rename)\w*")
# A mail handed to a mail server.
MAILING = {("aiosmtplib", "send"), ("_smtp", "send_message"), ("client", "send_message"), ("client", "sendmail")}
# HTTP to the outside that is no reading.
HTTP = {"client", "_client", "http", "_http"}
HTTP_WRITING = {"post", "put", "patch", "delete"}
HTTP_REQUEST = {"build_request", "request", "stream"}
HTTP_READING = {"GET", "HEAD"}
# A login moves neither money nor a key: its token exchange is repeated by the customer.
OFF_THE_ROAD = ("gateway/gateway/auth/",)
# A transaction commits something unless all that it awaits is one of these, SQL that begins with SELECT, or a function
# of the part that itself awaits nothing else.
READING = {
    "authorization",
    "digest",
    "earlier_answer",
    "earlier_appends",
    "entry_count",
    "filled",
    "hashes",
    "key",
    "key_by_source",
    "load",
    "page",
    "page_of_entries",
    "payments",
    "stored_entries",
}
READING_PREFIXES = ("read_", "_read_", "_status", "_keys", "_product_names")
SQL_READING = re.compile(r"\s*SELECT\b", re.IGNORECASE)
SQL_WRITING = {"insert", "update", "delete"}

DEEPEST = 5


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A context manager of a part that runs a block in a transaction, and the call by which it begins it."""

    module: Module
    function: Function
    inner: ast.Call


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the source where something is done that lasts."""

    module: Module
    node: ast.Call | ast.AsyncWith

    @property
    def is_commit(self) -> bool:
        return isinstance(self.node, ast.AsyncWith)

    @property
    def end(self) -> int:
        return self.node.end_lineno or self.node.lineno

    def __str__(self) -> str:
        return f"{self.module.path}:{self.node.lineno}"


class Checker:
    """Looks for effects without failpoints in some modules."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._modules = modules
        self._functions: dict[tuple[str, str], list[tuple[Module, Function]]] = {}
        for module in modules:
            for node in ast.walk(module.tree):
                if isinstance(node, Function):
                    self._functions.setdefault((module.part, node.name), []).append((module, node))
        self._wrappers = self._find_wrappers()
        self._sites = [site for module in modules for site in self._find(module)]
        self._claimed: dict[tuple[str, int, str], Site] = {}

    def uncovered(self) -> list[str]:
        """Return file and line of every effect that has no failpoints."""
        return sorted({str(place) for site in self._sites for place in self._bare(site, DEEPEST)})

    def _find(self, module: Module) -> Iterator[Site]:
        if module.path.startswith(OFF_THE_ROAD):
            return
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _is_effect(node) and not _is_of(PUBLISHER, module, node):
                yield Site(module, node)
            if isinstance(node, ast.AsyncWith):
                for item in node.items:
                    call = item.context_expr
                    if self._is_transaction(module, call) and self._commits(module, node):
                        yield Site(module, node)

    def _is_transaction(self, module: Module, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and (
            called(node) == "transaction" or (module.part, called(node)) in self._wrappers
        )

    def _find_wrappers(self) -> dict[tuple[str, str], list[Wrapper]]:
        self._wrappers = {}
        while True:
            found: dict[tuple[str, str], list[Wrapper]] = {}
            for (part, name), functions in self._functions.items():
                for module, function in functions:
                    for block in ast.walk(function) if isinstance(function, ast.AsyncFunctionDef) else ():
                        for item in block.items if isinstance(block, ast.AsyncWith) and _yields(block) else ():
                            if isinstance(item.context_expr, ast.Call) and self._is_transaction(
                                module, item.context_expr
                            ):
                                wrapper = Wrapper(module, function, item.context_expr)
                                found.setdefault((part, name), []).append(wrapper)
            if found == self._wrappers:
                return found
            # What wraps a wrapper is one, too.
            self._wrappers = found

    def _commits(self, module: Module, block: ast.AsyncWith) -> bool:
        return not _yields(block) and any(not self._reads(module, call, DEEPEST) for call in _awaited(block.body))

    def _reads(self, module: Module, call: ast.Call, depth: int) -> bool:
        name = called(call)
        if name == "failpoint" or name in READING or name.startswith(READING_PREFIXES):
            return True
        if isinstance(call.func, ast.Name) and depth:
            named = self._functions.get((module.part, name), [])
            found = [each for each in named if each[0] is module] or named
            return bool(found) and all(
                self._reads(other, each, depth - 1) for other, function in found for each in _awaited(function.body)
            )
        if name not in {"execute", "scalar", "stream"} or not call.args:
            return False
        words = set(self._sql_words(call.args[0], module, module.function_of(call)))
        return "select" in words and not words & SQL_WRITING

    def _sql_words(
        self, node: ast.AST, module: Module, function: Function | None, seen: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        """Yield which kinds of SQL a statement is made of, through variables, parameters and functions that make it."""
        for each in ast.walk(node):
            if isinstance(each, ast.Call) and called(each) in {"select", *SQL_WRITING}:
                yield called(each)
            elif isinstance(each, ast.Call) and called(each) == "text":
                yield "select" if SQL_READING.match(_beginning(each.args[0])) else "update"
            elif isinstance(each, ast.Name) and each.id not in seen and len(seen) < DEEPEST:
                for value in _assigned(each.id, module, function):
                    yield from self._sql_words(value, module, function, seen | {each.id})
                for other, value in self._handed(each.id, module, function):
                    yield from self._sql_words(value, other, other.function_of(value), seen | {each.id})
                for other, maker in self._functions.get((module.part, each.id), []) if _is_called(each, module) else ():
                    for made in ast.walk(maker):
                        if isinstance(made, ast.Return) and made.value is not None:
                            yield from self._sql_words(made.value, other, maker, seen | {each.id})

    def _handed(self, name: str, module: Module, function: Function | None) -> Iterator[tuple[Module, ast.expr]]:
        """Yield what a function's callers give for a parameter."""
        parameters = [each.arg for each in function.args.args if each.arg != "self"] if function else []
        if function is not None and name in parameters:
            for other, call in own_calls(function, module, self._modules):
                if len(call.args) > (place := parameters.index(name)):
                    yield other, call.args[place]

    def _bare(self, site: Site, depth: int) -> list[Site]:
        """Return where this effect should have had failpoints: nowhere, when it has.

        Where some callers have them, it is those that have not; where none has, the effect itself.
        """
        if self._is_covered(site):
            return []
        function = site.module.function_of(site.node)
        callers = [] if function is None or depth == 0 else list(self._callers(site.module, function))
        bare = [self._bare(caller, depth - 1) for caller in callers]
        return [place for places in bare for place in places] if any(not places for places in bare) else [site]

    def _callers(self, module: Module, function: Function) -> Iterator[Site]:
        for other, call in own_calls(function, module, self._modules):
            yield Site(other, call)
        if module.class_of(function) is None:
            return
        for other in self._modules:
            for call in other.calls if module.part in (other.part, "chassis") else ():
                within = other.function_of(call) is function
                if called(call) == function.name and receiver(call).startswith("_") and not within:
                    yield Site(other, call)

    def _is_covered(self, site: Site) -> bool:
        if any(isinstance(outer, ast.Call) and called(outer) == "effect" for outer in site.module.around(site.node)):
            return True
        if isinstance(site.node, ast.AsyncWith) and self._is_named(site.module, site.node):
            return True
        return self._has_pair(site)

    def _is_named(self, module: Module, block: ast.AsyncWith) -> bool:
        return any(
            isinstance(item.context_expr, ast.Call) and self._names_commit(module, item.context_expr)
            for item in block.items
        )

    def _names_commit(self, module: Module, call: ast.Call) -> bool:
        """Tell whether what begins a transaction gives it a name, or whatever it goes through does."""
        if is_of_database(call):
            return bool(call.args)
        wrappers = self._wrappers.get((module.part, called(call)), [])
        kept = [each for each in wrappers if is_kept_as(receiver(call), each.module.class_of(each.function))]
        return bool(wrappers) and all(self._names_for(each, call) for each in kept or wrappers)

    def _names_for(self, wrapper: Wrapper, call: ast.Call) -> bool:
        if len(list(_pairs(wrapper.function))) == 1:
            return True
        if not self._names_commit(wrapper.module, wrapper.inner):
            return False
        parameters = [each.arg for each in wrapper.function.args.args if each.arg != "self"]
        names = {node.id for arg in wrapper.inner.args for node in ast.walk(arg) if isinstance(node, ast.Name)}
        # What it takes a part of the name from must be given.
        return all(len(call.args) > place for place, parameter in enumerate(parameters) if parameter in names)

    def _has_pair(self, site: Site) -> bool:
        function = site.module.function_of(site.node)
        if function is None:
            return False
        for before, after, name in sorted(_pairs(function), reverse=True):
            begins = site.end if site.is_commit else site.node.lineno
            if before <= begins and after >= site.end:
                # A pair is around one effect: a second one between its places would be seen by neither.
                owner = self._claimed.setdefault((site.module.path, before, name), site)
                if owner.node is site.node or owner.node in site.module.around(site.node):
                    return True
                if site.node in site.module.around(owner.node):
                    return True
        return False


def _is_effect(call: ast.Call) -> bool:
    name, on = called(call), receiver(call)
    first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    return bool(
        (STUB.fullmatch(on) and RPC.fullmatch(name) and not READING_RPC.fullmatch(name))
        or (on in PUBLISHERS and name in PUBLISHING)
        or (on == OBJECT_STORE and STORING.fullmatch(name))
        or (on, name) in MAILING
        or (on in HTTP and name in HTTP_WRITING)
        or (on in HTTP and name in HTTP_REQUEST and first not in HTTP_READING)
    )


def _is_of(name: str, module: Module, node: ast.AST) -> bool:
    found = module.class_of(node)
    return found is not None and found.name == name


def _yields(block: ast.AsyncWith) -> bool:
    return any(isinstance(node, ast.Yield) for piece in block.body for node in ast.walk(piece))


def _pairs(function: Function) -> Iterator[tuple[int, int, str]]:
    """Yield the lines of each pair of failpoints that stand in a function, and the name that they share."""
    places: dict[str, dict[str, int]] = {"before": {}, "after": {}}
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and called(node) == "failpoint" and node.args:
            match = re.fullmatch(r"f?'(.*\.|)(before|after)_(\w|[{}])+'", text := ast.unparse(node.args[0]))
            if match:
                places[match[2]][text.replace(f"{match[2]}_", "", 1)] = node.lineno
    for name, line in places["before"].items():
        if name in places["after"]:
            yield line, places["after"][name], name


def _awaited(body: Sequence[ast.stmt]) -> list[ast.Call]:
    awaited = [node.value for piece in body for node in ast.walk(piece) if isinstance(node, ast.Await)]
    return [node for node in awaited if isinstance(node, ast.Call)]


def _is_called(node: ast.Name, module: Module) -> bool:
    around = module.parents.get(node)
    return isinstance(around, ast.Call) and around.func is node


def _beginning(sql: ast.expr) -> str:
    first = sql.values[0] if isinstance(sql, ast.JoinedStr) and sql.values else sql
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _assigned(name: str, module: Module, function: Function | None) -> Iterator[ast.expr]:
    """Yield what a name stands for: in its function, else in its module."""
    local = list(ast.walk(function)) if function else []
    for node in (*local, *module.tree.body):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            yield node.value


def check(source: str, *more: str, part: str = "vault") -> list[str]:
    """Return the lines of a planted file that lack failpoints; `more` are other files of the same part."""
    files = [
        Module.of(part, f"planted_{number}.py", textwrap.dedent(text)) for number, text in enumerate((source, *more))
    ]
    return Checker(files).uncovered()


def test_every_effect_has_failpoints_around_it() -> None:
    assert Checker(read_modules(listed_parts())).uncovered() == []


def test_the_page_lists_what_is_there() -> None:
    found = find_failpoints(read_modules(listed_parts()))
    assert PAGE.read_text(encoding="utf-8") == page(found), "run `python -m tests.failpoint_catalogue`"


def test_a_place_and_its_other_side_go_together() -> None:
    names = {each.name for each in find_failpoints(read_modules(listed_parts()))}
    for name in names:
        area, _, step = name.rpartition(".")
        other = {"before": "after", "after": "before"}.get(side := step.partition("_")[0])
        if other is not None:
            assert f"{area}.{other}_{step.removeprefix(f'{side}_')}" in names, name


@pytest.mark.parametrize(
    "effect",
    [
        "await self._stub.SealKey(request)",
        "await self._publisher.publish_event(event)",
        "await self._stream.publish(subject, data)",
        "await obstore.put_async(self._store, name, data)",
        "await aiosmtplib.send(message)",
        "await self._http.post(url)",
        "self._client.build_request('POST', 'v2/order')",
    ],
)
class TestPlantedEffects:
    def test_a_new_effect_is_reported(self, effect: str) -> None:
        assert check(f"class A:\n    async def act(self):\n        {effect}\n") == ["planted_0.py:3"]

    def test_a_pair_around_it_covers_it(self, effect: str) -> None:
        source = f"""
        class A:
            async def act(self):
                await failpoint("a.before_act")
                {effect}
                await failpoint("a.after_act")
        """
        assert check(source) == []

    def test_a_pair_covers_one_effect_only(self, effect: str) -> None:
        source = f"""
        class A:
            async def act(self):
                await failpoint("a.before_act")
                {effect}
                {effect}
                await failpoint("a.after_act")
        """
        assert check(source) == ["planted_0.py:6"]

    def test_half_a_pair_covers_nothing(self, effect: str) -> None:
        source = f"""
        class A:
            async def act(self):
                await failpoint("a.before_act")
                {effect}
                await failpoint("a.after_another")
        """
        assert check(source) == ["planted_0.py:5"]

    def test_it_is_covered_where_every_caller_is(self, effect: str) -> None:
        adapter = f"class A:\n    async def act(self):\n        {effect}\n"
        good = """
        class B:
            async def run(self):
                await effect("b.act", lambda: self._port.act())
        """
        bad = "class C:\n    async def run(self):\n        await self._port.act()\n"
        assert check(adapter, good) == []
        assert check(adapter, good, bad) == ["planted_2.py:3"]


@pytest.mark.parametrize(
    "statement",
    ["insert(TABLE)", "update(TABLE).values(a=1)", "delete(TABLE)", "_CONSTANT", "text('DELETE FROM a')"],
)
class TestPlantedCommits:
    def block(self, statement: str, step: str = "") -> str:
        return self.SOURCE.replace("STEP", step).replace("STATEMENT", statement, 1)

    SOURCE = """
        class A:
            async def act(self):
                async with self._database.transaction(STEP) as connection:
                    return await connection.execute(STATEMENT)
        _CONSTANT = text("UPDATE a SET b = 1")
        """

    def test_a_new_commit_is_reported(self, statement: str) -> None:
        assert check(self.block(statement)) == ["planted_0.py:4"]

    def test_its_name_covers_it(self, statement: str) -> None:
        assert check(self.block(statement, '"vault.act"')) == []


def test_a_transaction_that_only_reads_needs_nothing() -> None:
    source = """
    class A:
        async def act(self):
            statement = select(TABLE).where(a)
            async with self._database.transaction() as connection:
                await connection.execute(text("SELECT 1"))
                return (await connection.execute(statement.limit(1))).all()
    """
    assert check(source) == []


@pytest.mark.parametrize("method", ["GetKey", "ListKeys", "WatchKeys"])
def test_a_call_that_only_reads_needs_nothing(method: str) -> None:
    assert check(f"class A:\n    async def act(self):\n        await self._stub.{method}(request)\n") == []


def test_a_port_whose_transactions_have_no_failpoints_needs_them_where_it_is_used() -> None:
    port = """
    class Rows:
        async def transaction(self):
            async with self._database.transaction() as connection:
                yield Transaction(connection)
    """
    covered = """
    class Rows:
        async def transaction(self):
            async with self._database.transaction() as connection:
                yield Transaction(connection)
                await failpoint("a.before_commit")
            await failpoint("a.after_commit")
    """
    use = """
    class Use:
        async def act(self):
            async with self._rows.transaction() as transaction:
                await transaction.add(row)
    """
    assert check(use, port) == ["planted_0.py:4"]
    assert check(use, covered) == []
