"""The page's own files, served under a name that changes with their content."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
_MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, in memory."""

    content: bytes
    media_type: str


class Assets:
    """Every file of the static folder, read once.

    The digest in a path is that of all files together, so that modules that import each other by relative name always
    come from one build, and a browser may keep them for ever.
    """

    def __init__(self) -> None:
        files = sorted(path for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES)
        self._assets = {path.name: Asset(path.read_bytes(), _MEDIA_TYPES[path.suffix]) for path in files}
        digest = hashlib.sha256()
        for name, asset in self._assets.items():
            digest.update(f"{name}\n{len(asset.content)}\n".encode() + asset.content)
        self.digest = digest.hexdigest()[:16]

    def url(self, name: str) -> str:
        """Return the path of a file. Raises KeyError for one that is not there: a template is wrong."""
        if name not in self._assets:
            raise KeyError(name)
        return f"/static/{self.digest}/{name}"

    def find(self, name: str) -> Asset | None:
        """Return a file by its name."""
        return self._assets.get(name)
