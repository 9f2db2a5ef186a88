import io
import json
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from chassis.buckets import REGION
from moto import mock_aws
from vault.adapters.r2_bucket import LIFECYCLE, _check, _provision, check_bucket, provision_bucket
from vault.errors import BucketUnfit, ObjectStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ENDPOINT = "https://account.r2.example"
ORIGIN = "https://keys.example"
STEPS = ("create_bucket", "put_bucket_cors", "put_bucket_lifecycle_configuration")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator["S3Client"]:
    monkeypatch.setenv("MOTO_S3_CUSTOM_ENDPOINTS", ENDPOINT)
    with mock_aws():
        yield boto3.client(
            "s3", endpoint_url=ENDPOINT, aws_access_key_id="id", aws_secret_access_key="secret", region_name=REGION
        )


def provision(origin: str = ORIGIN) -> None:
    provision_bucket(
        endpoint=ENDPOINT, bucket="sealed-keys", access_key_id="id", secret_access_key="secret", origin=origin
    )


def test_the_bucket_is_there_for_the_pages_origin_alone(client: "S3Client") -> None:
    provision()
    (rule,) = client.get_bucket_cors(Bucket="sealed-keys")["CORSRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == ([ORIGIN], ["GET"])
    grants = client.get_bucket_acl(Bucket="sealed-keys")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_no_rule_of_the_lifecycle_expires_anything(client: "S3Client") -> None:
    provision()
    client.put_bucket_lifecycle_configuration(
        Bucket="sealed-keys",
        LifecycleConfiguration={
            "Rules": [{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    )
    provision()
    rules = client.get_bucket_lifecycle_configuration(Bucket="sealed-keys")["Rules"]
    assert [rule["ID"] for rule in rules] == ["abort-unfinished-uploads"]
    for rule in rules:
        assert not rule.keys() & {"Expiration", "NoncurrentVersionExpiration", "Transitions"}


def test_doing_it_again_changes_nothing_but_the_origin(client: "S3Client", logs: list[Any]) -> None:
    provision()
    client.put_object(Bucket="sealed-keys", Key="keys/1", Body=b"sealed")
    provision("https://other.example")
    assert client.get_object(Bucket="sealed-keys", Key="keys/1")["Body"].read() == b"sealed"
    assert client.get_bucket_cors(Bucket="sealed-keys")["CORSRules"][0]["AllowedOrigins"] == ["https://other.example"]
    assert logs == []


def stubbed(code: str, status: int) -> "S3Client":
    client = boto3.client("s3", aws_access_key_id="id", aws_secret_access_key="secret", region_name=REGION)
    stubber = Stubber(client)
    for step in STEPS:
        stubber.add_client_error(step, service_error_code=code, http_status_code=status)
    stubber.activate()
    return client


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("NotImplemented", 501)])
def test_a_store_that_does_not_let_us_administer_it_is_told_and_used(
    code: str, status: int, logs: list[MutableMapping[str, Any]]
) -> None:
    _provision(stubbed(code, status), "sealed-keys", ORIGIN)
    assert [(log["log_level"], log["what"], log["code"]) for log in logs] == [
        ("warning", "bucket", code),
        ("warning", "cors", code),
        ("warning", "lifecycle", code),
    ]


def test_a_store_that_is_down_stops_the_start() -> None:
    with pytest.raises(ObjectStoreUnavailable):
        _provision(stubbed("ServiceUnavailable", 503), "sealed-keys", ORIGIN)


def test_a_store_that_cannot_be_reached_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url=ENDPOINT)

    monkeypatch.setattr("vault.adapters.r2_bucket._provision", unreachable)
    with pytest.raises(ObjectStoreUnavailable):
        provision()


def test_the_lifecycle_names_one_rule_and_it_is_harmless() -> None:
    assert [rule.keys() & {"Expiration"} for rule in LIFECYCLE["Rules"]] == [set()]


# What is checked at start


def check() -> None:
    check_bucket(endpoint=ENDPOINT, bucket="sealed-keys", access_key_id="id", secret_access_key="secret")


def answering(**answers: tuple[str, int] | bytes | None) -> "S3Client":
    """Give a client whose calls, in the order in which they are made, are answered so: an error, bytes, or nothing."""
    client = boto3.client("s3", aws_access_key_id="id", aws_secret_access_key="secret", region_name=REGION)
    stubber = Stubber(client)
    for call, answer in answers.items():
        method = call.rstrip("_")
        if isinstance(answer, tuple):
            stubber.add_client_error(method, service_error_code=answer[0], http_status_code=answer[1])
        else:
            body = {} if answer is None else {"Body": StreamingBody(io.BytesIO(answer), len(answer))}
            stubber.add_response(method, body)
    stubber.activate()
    return client


CONTENT = b"written at a start of vault, and deleted at once"
DENIED, THERE = ("AccessDenied", 403), ("PreconditionFailed", 412)
UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"put_object": DENIED}, "R2_ACCESS_KEY_ID: may not write objects"),
    ({"put_object": ("NoSuchBucket", 404)}, "R2_BUCKET: there is no bucket sealed-keys"),
    ({"put_object": None, "put_object_": None}, "ignores If-None-Match"),
    ({"put_object": None, "put_object_": ("NotImplemented", 400)}, "may not take a conditional put"),
    ({"put_object": None, "put_object_": THERE, "get_object": DENIED}, "may not read objects"),
    ({"put_object": None, "put_object_": THERE, "get_object": b"other"}, "something else than was stored"),
]


@pytest.mark.parametrize(("answers", "says"), UNFIT, ids=[says for _, says in UNFIT])
def test_a_bucket_that_is_not_fit_stops_the_start_with_a_sentence(answers: dict[str, Any], says: str) -> None:
    with pytest.raises(BucketUnfit, match=says):
        _check(answering(**answers), "sealed-keys", "checks/1", b"content")


def test_a_store_that_lets_a_name_be_written_once_in_a_second_is_fit() -> None:
    client = answering(put_object=None, put_object_=("TooManyRequests", 429), get_object=b"content")
    _check(client, "sealed-keys", "checks/1", b"content")


def test_a_bucket_that_may_not_be_deleted_in_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    client = answering(
        put_object=None, put_object_=THERE, get_object=CONTENT, delete_object=DENIED, delete_object_=DENIED
    )
    clients = iter((client, answering(get_object=DENIED)))
    monkeypatch.setattr("vault.adapters.r2_bucket.open_admin", lambda *_: next(clients))
    with pytest.raises(BucketUnfit, match="may not delete objects"):
        check()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_store_that_is_busy_is_not_unfit(status: int) -> None:
    with pytest.raises(ObjectStoreUnavailable):
        _check(answering(put_object=("SlowDown", status)), "sealed-keys", "checks/1", b"content")


def test_a_public_bucket_stops_the_start_and_a_private_one_does_not(client: "S3Client") -> None:
    provision()
    check()
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::sealed-keys/*"}
    client.put_bucket_policy(Bucket="sealed-keys", Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]}))
    with pytest.raises(BucketUnfit, match="is public"):
        check()
    assert client.list_objects_v2(Bucket="sealed-keys").get("Contents", []) == []
