from datetime import UTC, datetime, timedelta

import pytest
from chassis.errors import InvalidRequest
from chassis.paging import write_page_token
from vault.errors import KeyNotFound
from vault.listing import KeyReader
from vault.ports import KeyFilter

from tests.unit.vault.fakes import NOON, World, a_seal

HOUR = timedelta(hours=1)


async def fill(world: World, count: int = 7) -> list[str]:
    """Seal keys of two orders, two at a time; return their ids as they are to be listed."""
    for number in range(count):
        world.clock.moment = NOON + (number // 2) * HOUR
        request = a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}", order_id=f"order-{1 + number % 2}")
        await world.sealer.seal(request)
    records = sorted(world.keys.rows.keys.values(), key=lambda record: (record.create_time, record.key_id))
    return [record.key_id for record in records]


async def pages(world: World, wanted: KeyFilter, size: int) -> list[list[str]]:
    found: list[list[str]] = []
    token = ""
    for _ in range(20):
        page = await KeyReader(world.keys).page(wanted, size=size, token=token)
        found.append([record.key_id for record in page.records])
        token = page.next_page_token
        if not token:
            return found
    raise AssertionError("it does not end")


async def test_a_key_is_read_by_its_name(world: World) -> None:
    record = await world.sealed()
    assert await KeyReader(world.keys).get(record.key_id) == record
    with pytest.raises(KeyNotFound):
        await KeyReader(world.keys).get("none")


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 0])
async def test_pages_follow_one_another_without_a_gap_or_a_repeat(world: World, size: int) -> None:
    ids = await fill(world)
    found = await pages(world, KeyFilter(), size)
    assert [key_id for page in found for key_id in page] == ids
    assert all(len(page) == (size or 7) for page in found[:-1])
    assert found[-1], "no page is empty where there are keys"


async def test_what_is_sealed_meanwhile_comes_at_the_end(world: World) -> None:
    ids = await fill(world)
    first = await KeyReader(world.keys).page(KeyFilter(), size=4, token="")
    late = await world.sealer.seal(a_seal(b"late", source_ref="kinguin:9:9"))
    rest = await KeyReader(world.keys).page(KeyFilter(), size=9, token=first.next_page_token)
    assert {record.key_id for record in rest.records} == {*ids[4:], late.key_id}


async def test_a_filter_is_a_span_of_time_and_an_order(world: World) -> None:
    await fill(world)
    rows = world.keys.rows.keys.values()
    (span,) = await pages(world, KeyFilter("", NOON + HOUR, NOON + 3 * HOUR), 100)
    assert set(span) == {row.key_id for row in rows if NOON + HOUR <= row.create_time < NOON + 3 * HOUR}
    (mine,) = await pages(world, KeyFilter("order-2", NOON + HOUR), 100)
    assert set(mine) == {row.key_id for row in rows if row.order_id == "order-2" and row.create_time >= NOON + HOUR}
    assert await pages(world, KeyFilter("order-9"), 100) == [[]]


async def test_a_token_is_good_for_its_listing_only(world: World) -> None:
    await fill(world)
    reader = KeyReader(world.keys)
    token = (await reader.page(KeyFilter("order-1"), size=1, token="")).next_page_token
    for other in (KeyFilter(), KeyFilter("order-2"), KeyFilter("order-1", NOON), KeyFilter("order-1", None, NOON)):
        with pytest.raises(InvalidRequest):
            await reader.page(other, size=1, token=token)


@pytest.mark.parametrize(
    "place", [("never", "key"), (NOON.isoformat(), "a/b"), (NOON.isoformat(), ""), ("0001-01-01T00:00+14:00", "k")]
)
async def test_a_place_that_is_none_is_refused(world: World, place: tuple[str, str]) -> None:
    token = write_page_token(["", "", ""], place)
    with pytest.raises(InvalidRequest):
        await KeyReader(world.keys).page(KeyFilter(), size=1, token=token)


async def test_a_size_below_nothing_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest):
        await KeyReader(world.keys).page(KeyFilter(), size=-1, token="")


async def test_a_key_knows_when_it_was_first_asked_for(world: World) -> None:
    world.clock.moment = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    assert (await world.sealed()).create_time == world.clock.moment
