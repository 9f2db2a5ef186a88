import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.appending import LARGEST_GROUP, MOST_WAITING, GroupAppender, append_drafts
from audit.domain.entry import Actor, ActorType, Draft
from chassis.errors import RequestIdReused, ServiceUnavailable

from tests.unit.audit.memory_log import MemoryLog

ALICE = Actor(ActorType.CUSTOMER, "alice", "alice@example.com")


def a_draft(number: int = 0, actor: Actor = ALICE) -> Draft:
    return Draft(f"append-{number}", b"told", actor, "key.sealed", "vault", order_id=f"order-{number}")


@asynccontextmanager
async def running(appender: GroupAppender) -> AsyncIterator[GroupAppender]:
    task = asyncio.create_task(appender.run())
    yield appender
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_transaction_takes_many_drafts_of_one_person(log: MemoryLog, keys: JosePersonKeys) -> None:
    async with log.transaction() as transaction:
        results = await append_drafts(transaction, keys, [a_draft(number) for number in range(3)])
    assert [result.sequence for result in results if not isinstance(result, RequestIdReused)] == [0, 1, 2]
    assert len(log.persons) == 1


async def test_a_repeat_in_the_same_group_is_one_entry(log: MemoryLog, keys: JosePersonKeys) -> None:
    other = replace(a_draft(), told=b"something else")
    async with log.transaction() as transaction:
        first, same, reused = await append_drafts(transaction, keys, [a_draft(), a_draft(), other])
    assert first == same
    assert isinstance(reused, RequestIdReused)
    assert len(log.stored) == 1


async def test_appends_that_wait_share_a_commit(log: MemoryLog, keys: JosePersonKeys) -> None:
    async with running(GroupAppender(log, keys)) as appender:
        answers = await asyncio.gather(*(appender.append(a_draft(number)) for number in range(LARGEST_GROUP + 50)))
    assert [answer.sequence for answer in answers] == list(range(LARGEST_GROUP + 50))
    assert log.commits == 2


async def test_nobody_is_answered_while_the_log_is_away_and_a_repeat_succeeds(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    log.away = True
    async with running(GroupAppender(log, keys)) as appender:
        results = await asyncio.gather(
            *(appender.append(a_draft(number)) for number in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, ServiceUnavailable) for result in results)
        log.away = False
        assert (await appender.append(a_draft())).sequence == 0


async def test_a_draft_that_cannot_be_stored_fails_alone(log: MemoryLog, keys: JosePersonKeys) -> None:
    bad = replace(a_draft(1), order_id=log.poison)
    async with running(GroupAppender(log, keys)) as appender:
        one, failed, two = await asyncio.gather(
            *(appender.append(draft) for draft in (a_draft(0), bad, a_draft(2))), return_exceptions=True
        )
    assert isinstance(failed, ServiceUnavailable)
    assert [entry.appended for entry in log.stored] == [one, two]
    assert [entry.appended.sequence for entry in log.stored] == [0, 1]


async def test_who_gave_up_before_its_group_began_leaves_no_entry(log: MemoryLog, keys: JosePersonKeys) -> None:
    appender = GroupAppender(log, keys)
    given_up = asyncio.create_task(appender.append(a_draft(0)))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    async with running(appender):
        assert (await appender.append(a_draft(1))).sequence == 0
    assert [entry.append_id for entry in log.stored] == ["append-1"]


async def test_who_gave_up_during_the_commit_does_not_disturb_the_others(log: MemoryLog, keys: JosePersonKeys) -> None:
    async with running(GroupAppender(log, keys)) as appender:
        await log.turn.acquire()
        tasks = [asyncio.create_task(appender.append(a_draft(number))) for number in range(2)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        log.turn.release()
        assert (await tasks[1]).sequence == 1


async def test_who_waits_when_it_stops_is_told(log: MemoryLog, keys: JosePersonKeys) -> None:
    appender = GroupAppender(log, keys)
    await log.turn.acquire()
    async with running(appender):
        tasks = [asyncio.create_task(appender.append(a_draft(0)))]
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(appender.append(a_draft(1))))
        await asyncio.sleep(0.01)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ServiceUnavailable) for result in results)
    assert log.stored == []


async def test_a_queue_that_is_full_refuses_at_once(log: MemoryLog, keys: JosePersonKeys) -> None:
    appender = GroupAppender(log, keys)
    tasks = [asyncio.create_task(appender.append(a_draft(number))) for number in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceUnavailable, match="too many"):
        await appender.append(a_draft(MOST_WAITING))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_reused_id_is_told_to_its_caller_only(log: MemoryLog, keys: JosePersonKeys) -> None:
    service = Actor(ActorType.SERVICE, "vault")
    async with running(GroupAppender(log, keys)) as appender:
        await appender.append(a_draft(0, service))
        reused, fresh = await asyncio.gather(
            appender.append(replace(a_draft(0, service), told=b"other")),
            appender.append(a_draft(1, service)),
            return_exceptions=True,
        )
    assert isinstance(reused, RequestIdReused)
    assert not isinstance(fresh, BaseException)
    assert log.persons == {}
