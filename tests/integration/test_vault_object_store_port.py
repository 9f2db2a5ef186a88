"""What every object store behind vault's port promises: R2's adapter against a real S3, and the fake of unit tests."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from chassis.buckets import REGION
from chassis.deadline import bounded
from sandbox.ports import free_port
from sandbox.servers.s3 import S3Server
from vault.adapters.r2 import R2ObjectStore
from vault.adapters.r2_bucket import check_bucket, provision_bucket
from vault.errors import BucketUnfit, ObjectStoreRefused, ObjectStoreUnavailable
from vault.ports import ObjectExists, ObjectMissing, ObjectStore, ObjectTooLarge

from tests.integration.conftest import S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY
from tests.unit.vault.fakes import FAKE_OBJECT_LIMIT, MemoryObjects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ORIGIN = "http://localhost:8080"
BUCKET = "vault-port"


def a_place(endpoint: str, **changes: str) -> dict[str, str]:
    good = {
        "endpoint": endpoint,
        "bucket": BUCKET,
        "access_key_id": S3_ACCESS_KEY_ID,
        "secret_access_key": S3_SECRET_ACCESS_KEY,
    }
    return good | changes


@pytest.fixture(scope="module")
def endpoint(s3_server: S3Server) -> str:
    provision_bucket(**a_place(s3_server.url), origin=ORIGIN)
    return s3_server.url


@pytest.fixture
def r2(endpoint: str) -> R2ObjectStore:
    return R2ObjectStore(**a_place(endpoint))


@pytest.fixture
def s3(endpoint: str) -> Iterator["S3Client"]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=S3_ACCESS_KEY_ID,
        aws_secret_access_key=S3_SECRET_ACCESS_KEY,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjects()
    found: R2ObjectStore = request.getfixturevalue("r2")
    return found


def a_name() -> str:
    return f"keys/{uuid.uuid4().hex}"


# Every store


@pytest.mark.parametrize("size", [1, 500, 1_500_000])
async def test_what_was_stored_is_read_back_byte_for_byte(store: ObjectStore, size: int) -> None:
    name, data = a_name(), os.urandom(size)
    await store.create(name, data)
    assert await store.read(name) == data


async def test_a_name_is_written_once(store: ObjectStore) -> None:
    name = a_name()
    await store.create(name, b"first")
    for again in (b"second", b"first"):
        with pytest.raises(ObjectExists):
            await store.create(name, again)
    assert await store.read(name) == b"first"


async def test_of_many_who_write_one_name_at_once_one_succeeds(store: ObjectStore) -> None:
    name = a_name()
    contents = [f"writer {number}".encode() for number in range(8)]
    results = await asyncio.gather(*(store.create(name, data) for data in contents), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType"] + ["ObjectExists"] * 7
    assert await store.read(name) == contents[results.index(None)]


async def test_what_is_not_there_is_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.read(a_name())


async def test_what_is_larger_than_anything_of_ours_is_not_read(store: ObjectStore) -> None:
    name = a_name()
    await store.create(name, bytes(FAKE_OBJECT_LIMIT + 1))
    with pytest.raises(ObjectTooLarge):
        await store.read(name)


async def test_a_signed_url_names_its_object_and_lives_no_longer_than_asked(store: ObjectStore) -> None:
    name = a_name()
    await store.create(name, b"sealed")
    url = urlsplit(await store.presign(name, timedelta(minutes=14, seconds=59.9)))
    assert url.path.endswith(name)
    assert parse_qs(url.query)["X-Amz-Expires"] == ["899"]


async def test_what_is_deleted_is_gone_however_often_and_the_name_is_free(store: ObjectStore) -> None:
    name, other = a_name(), a_name()
    await store.create(name, b"sealed")
    await store.create(other, b"another's")
    for _ in range(2):
        await store.delete(name)
        with pytest.raises(ObjectMissing):
            await store.read(name)
    await asyncio.gather(*(store.delete(name) for _ in range(4)))
    await store.delete(a_name())
    assert await store.read(other) == b"another's"
    await store.create(name, b"new")
    assert await store.read(name) == b"new"


# A real one


async def test_a_signed_url_gives_the_ciphertext_without_credentials(
    r2: R2ObjectStore, http: httpx.AsyncClient
) -> None:
    name = a_name()
    await r2.create(name, b"sealed")
    answer = await http.get(await r2.presign(name, timedelta(minutes=15)))
    assert (answer.status_code, answer.content) == (200, b"sealed")


async def test_a_signed_url_is_for_reading_this_object_only(r2: R2ObjectStore, http: httpx.AsyncClient) -> None:
    name, other = a_name(), a_name()
    await r2.create(name, b"sealed")
    await r2.create(other, b"another's")
    url = await r2.presign(name, timedelta(minutes=15))
    assert (await http.put(url, content=b"overwritten")).status_code == 403
    assert (await http.delete(url)).status_code == 403
    assert (await http.get(url.replace(name, other))).status_code == 403
    assert (await http.get(url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"))).status_code == 403
    assert await r2.read(name) == b"sealed"


async def test_the_bucket_is_private(r2: R2ObjectStore, http: httpx.AsyncClient) -> None:
    name = a_name()
    await r2.create(name, b"sealed")
    unsigned = (await r2.presign(name, timedelta(minutes=15))).partition("?")[0]
    for address in (unsigned, unsigned.removesuffix(name), f"{unsigned.removesuffix(name)}?list-type=2"):
        answer = await http.get(address)
        assert answer.status_code == 403
        assert b"sealed" not in answer.content


async def test_the_page_may_fetch_it_and_other_origins_may_not(r2: R2ObjectStore, http: httpx.AsyncClient) -> None:
    name = a_name()
    await r2.create(name, b"sealed")
    url = await r2.presign(name, timedelta(minutes=15))
    ours = await http.get(url, headers={"origin": ORIGIN})
    theirs = await http.get(url, headers={"origin": "https://evil.example"})
    assert ours.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in theirs.headers


def test_provisioning_again_keeps_what_is_there(s3: "S3Client", endpoint: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="keys/kept", Body=b"sealed")
    provision_bucket(**a_place(endpoint), origin=ORIGIN)
    assert s3.get_object(Bucket=BUCKET, Key="keys/kept")["Body"].read() == b"sealed"
    (rule,) = s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"]
    assert rule["AllowedOrigins"] == [ORIGIN]


def lifecycle_rules(s3: "S3Client") -> list[str]:
    try:
        return [str(sorted(rule)) for rule in s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]]
    except ClientError as error:
        # This store forgets a rule that it would do nothing for.
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
        return []


def test_no_rule_of_the_lifecycle_expires_a_key(s3: "S3Client") -> None:
    assert not any("Expiration" in rule for rule in lifecycle_rules(s3))


@pytest.mark.parametrize(
    "changes", [{"secret_access_key": "wrong"}, {"access_key_id": "nobody"}], ids=["wrong secret", "unknown id"]
)
async def test_a_store_that_refuses_us_is_no_store_where_something_is_missing(
    endpoint: str, changes: dict[str, str]
) -> None:
    locked = R2ObjectStore(**a_place(endpoint, **changes))
    with pytest.raises(ObjectStoreRefused):
        await locked.create(a_name(), b"sealed")
    with pytest.raises(ObjectStoreRefused):
        await locked.read(a_name())
    with pytest.raises(ObjectStoreRefused):
        await locked.delete(a_name())


async def test_a_store_that_is_not_there_is_unavailable() -> None:
    nowhere = R2ObjectStore(**a_place(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(ObjectStoreUnavailable) as raised:
        await nowhere.create(a_name(), b"sealed")
    assert "127.0.0.1" not in str(raised.value)
    with pytest.raises(ObjectStoreUnavailable):
        await nowhere.read(a_name())
    with pytest.raises(ObjectStoreUnavailable):
        await nowhere.delete(a_name())


async def test_a_store_that_hangs_is_unavailable_when_the_requests_time_is_over() -> None:
    # Connections are taken by the kernel; nobody ever reads from them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = R2ObjectStore(**a_place(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises((ObjectStoreUnavailable, TimeoutError)):
            async with bounded(0.3):
                await slow.read(a_name())


def test_the_real_store_is_fit_and_nothing_is_left_of_the_check(s3: "S3Client", endpoint: str) -> None:
    for _ in range(2):
        check_bucket(**a_place(endpoint))
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="checks/").get("Contents", []) == []


def test_a_store_that_does_not_let_us_in_stops_the_start_with_a_sentence(endpoint: str) -> None:
    with pytest.raises(BucketUnfit, match="R2_ACCESS_KEY_ID: may not write objects"):
        check_bucket(**a_place(endpoint, secret_access_key="wrong"))


def test_a_store_that_cannot_be_provisioned_stops_the_start() -> None:
    with pytest.raises(ObjectStoreUnavailable):
        provision_bucket(**a_place(f"http://127.0.0.1:{free_port()}"), origin=ORIGIN)
