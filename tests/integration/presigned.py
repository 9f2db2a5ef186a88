"""Signs a presigned URL by hand (AWS Signature Version 4): as old as a test wants, so that nobody waits."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

_FORMAT = "%Y%m%dT%H%M%SZ"
_SIGNATURE = "X-Amz-Signature"


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def signed_at(url: str) -> datetime:
    return datetime.strptime(parameters(url)["X-Amz-Date"], _FORMAT).replace(tzinfo=UTC)


def sign_again(url: str, secret: str, moment: datetime) -> str:
    """Return the URL as its signer would have made it at another moment, and otherwise unchanged."""
    values = parameters(url)
    values.pop(_SIGNATURE)
    access_key_id, _, region, service, ending = values["X-Amz-Credential"].split("/")
    scope = f"{moment:%Y%m%d}/{region}/{service}/{ending}"
    values |= {"X-Amz-Date": moment.strftime(_FORMAT), "X-Amz-Credential": f"{access_key_id}/{scope}"}
    place = urlsplit(url)
    query = _query(values)
    canonical = f"GET\n{place.path}\n{query}\nhost:{place.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    to_sign = f"AWS4-HMAC-SHA256\n{moment.strftime(_FORMAT)}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{place.scheme}://{place.netloc}{place.path}?{query}&{_SIGNATURE}={signature}"


def _query(values: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(values.items()))
