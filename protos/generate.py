"""Generate messages, stubs and type stubs into `protos/gen`; with `--check`, only say whether they are stale.

The package path of a proto is the import path of its module, so generated imports work unedited.
"""

import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
GENERATED = HERE / "gen"


def generate(target: Path) -> None:
    """Run the compiler over every proto and make each package importable and typed."""
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / "keyferry").rglob("*.proto"))
    plugins = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--proto_path={HERE}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *sources,
        ]
    )
    if status:
        sys.exit("protoc failed; its message is above")
    for folder in [path for path in (target / "keyferry").rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    (target / "keyferry" / "__init__.py").touch()
    (target / "keyferry" / "py.typed").touch()


def differences(left: Path, right: Path) -> list[str]:
    """Name every file that is not the same on both sides."""
    names = {str(path.relative_to(side)) for side in (left, right) for path in side.rglob("*.py*")}
    names = {name for name in names if "__pycache__" not in name}
    _, mismatch, errors = filecmp.cmpfiles(left, right, sorted(names), shallow=False)
    return mismatch + errors


def main() -> None:
    """Replace the generated tree, or compare it with a fresh one."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        stale = differences(fresh, GENERATED)
        if "--check" in sys.argv:
            sys.exit(f"stale: {', '.join(stale)}; run `make protos`" if stale else 0)
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(fresh, GENERATED)


if __name__ == "__main__":
    main()
