"""Each rule that finds effects without failpoints, shown by planted code: what it sees, and what it lets pass."""

import pytest

from tests.failpoint_catalogue import Module
from tests.unit.repository.test_failpoints import Checker, check

NAMING_PORT = """
class Rows:
    async def transaction(self, step=""):
        async with self._database.transaction(step and f"a.{step}") as connection:
            yield Transaction(connection)
"""


def using(begin: str) -> str:
    return f"""
    class Use:
        async def act(self):
            async with self._rows.{begin} as transaction:
                await transaction.add(row)
    """


def test_a_port_that_takes_the_name_must_be_given_it() -> None:
    assert check(using("transaction()"), NAMING_PORT) == ["planted_0.py:4"]
    assert check(using('transaction("step")'), NAMING_PORT) == []


def test_what_wraps_a_port_that_wraps_the_database_is_looked_through() -> None:
    def holding(begin: str) -> str:
        return f"""
        class Stage:
            async def holding(self, step):
                async with self._rows.{begin} as transaction:
                    await transaction.hold(step)
                    yield transaction
        """

    assert check(using('holding("step")'), holding("transaction(step)"), NAMING_PORT) == []
    assert check(using('holding("step")'), holding("transaction()"), NAMING_PORT) == ["planted_0.py:4"]


def executing(statement: str, more: str = "", *, parameter: str = "") -> str:
    return f"""
    class A:
        async def act(self{parameter}):
            async with self._database.transaction() as connection:
                return await connection.execute({statement})
        {more}
    """


@pytest.mark.parametrize(("made", "is_reported"), [("select(TABLE)", False), ("update(TABLE)", True)])
class TestPlantedStatements:
    def test_a_statement_is_followed_to_the_function_that_makes_it(self, made: str, *, is_reported: bool) -> None:
        source = executing("due(now).limit(1)") + f"\n    def due(now):\n        return {made}.where(now)\n"
        assert check(source) == (["planted_0.py:4"] if is_reported else [])

    def test_a_statement_is_followed_to_who_hands_it_over(self, made: str, *, is_reported: bool) -> None:
        caller = f"async def run(self):\n            return await self.act({made})"
        assert check(executing("given", caller, parameter=", given")) == (["planted_0.py:4"] if is_reported else [])

    def test_a_function_of_the_part_is_looked_into(self, made: str, *, is_reported: bool) -> None:
        source = """
        class A:
            async def act(self):
                async with self._database.transaction() as connection:
                    return await helping(connection)
        """
        helper = f"async def helping(connection):\n    return await connection.execute({made})\n"
        assert check(source, helper) == (["planted_0.py:4"] if is_reported else [])


@pytest.mark.parametrize(
    ("sql", "is_reported"),
    [
        ("'SELECT 1'", False),
        ("'  select pg_sleep(1)'", False),
        ("f'SELECT {column} FROM a'", False),
        ("'WITH gone AS (DELETE FROM a RETURNING b) SELECT b FROM gone'", True),
        ("f'{insert} INTO a'", True),
    ],
)
def test_sql_reads_only_where_it_begins_with_select(sql: str, *, is_reported: bool) -> None:
    assert check(executing(f"text({sql})")) == (["planted_0.py:4"] if is_reported else [])


def test_a_publisher_is_covered_where_it_is_used() -> None:
    publisher = """
    class Publisher:
        async def publish_event(self, event):
            await self._stream.publish(event.subject, event.data)
    """
    use = "class A:\n    async def act(self):\n        await self._publisher.publish_event(event)\n"
    assert check(publisher) == []
    assert check(use, publisher) == ["planted_0.py:3"]


@pytest.mark.parametrize(
    "call",
    [
        "await self._client.get(url)",
        "self._http.build_request('GET', url)",
        "await self._client.stream('HEAD', url)",
        "await obstore.get_async(self._store, name)",
        "await obstore.head_async(self._store, name)",
    ],
)
def test_reading_from_outside_needs_nothing(call: str) -> None:
    assert check(f"class A:\n    async def act(self):\n        {call}\n") == []


@pytest.mark.parametrize(
    "call",
    [
        "await obstore.delete_async(self._store, name)",
        "await obstore.copy_async(self._store, name, other)",
        "await obstore.rename_async(self._store, name, other)",
        "await client.send_message(message)",
        "await self._smtp.send_message(message)",
        "self._http.build_request(method, url)",
        "await self._client.delete(url)",
        "await self._kinguin.PlaceOrder(request)",
        "await self._vault.SealKey(request)",
    ],
)
def test_every_other_way_to_the_outside_is_reported(call: str) -> None:
    assert check(f"class A:\n    async def act(self):\n        {call}\n") == ["planted_0.py:3"]


def test_a_login_is_off_the_road_and_nothing_beside_it() -> None:
    source = "class A:\n    async def act(self):\n        await self._http.post(url)\n"
    for path, found in (("gateway/gateway/auth/oidc.py", []), ("gateway/gateway/routes/oidc.py", [3])):
        assert Checker([Module.of("gateway", path, source)]).uncovered() == [f"{path}:{line}" for line in found]
