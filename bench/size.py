"""What is downloaded and what it takes on disk, of cc-tailscale and of what it replaces."""

from __future__ import annotations

import io
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import cctailscale
from bench.figures import Subject
from bench.lab import OURS, TYPESCRIPT, Lab
from bench.process import MIB
from bench.rivals import FOLDER

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


async def measure(lab: Lab, rounds: int) -> Subject:  # noqa: ARG001 - the size is the same in each
    subject = Subject(
        "size",
        "Files, without bytecode. Wheel: the package compressed as a wheel is. Installed: the package and all that it "
        "requires, without Python; the server in TypeScript with what it requires, and its helper, without Node. "
        "tailscaled alone.",
    )
    package = Path(cctailscale.__file__).parent
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    requirements = sum(_installed(name) for name in _required())
    subject.add(f"{OURS}, wheel", "MiB", [_zipped(package, files) / MIB])
    subject.add(f"{OURS}, installed alone", "MiB", [_bytes(files) / MIB])
    subject.add(f"{OURS}, installed with what it requires", "MiB", [(_bytes(files) + requirements) / MIB])
    helper = _bytes([FOLDER / "helper"])
    if lab.typescript is not None:
        installed = next(FOLDER.glob("cache/_npx/*/node_modules"))
        subject.add(f"{TYPESCRIPT}, installed", "MiB", [(_bytes(installed.rglob("*")) + helper) / MIB])
    subject.add("helper", "MiB", [helper / MIB])
    subject.add("tailscaled", "MiB", [_bytes([FOLDER / "tailscaled"]) / MIB])
    return subject


def _required() -> set[str]:
    """The names of all distributions that the package takes, here, without extras."""
    found: set[str] = set()
    waiting: list[str] = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    while waiting:
        requirement = Requirement(waiting.pop())
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in found:
            found.add(requirement.name)
            waiting += metadata.requires(requirement.name) or ()
    return found


def _installed(name: str) -> int:
    files = metadata.files(name) or []
    return _bytes([Path(str(file.locate())) for file in files if file.suffix != ".pyc"])


def _zipped(package: Path, files: list[Path]) -> int:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            archive.write(file, file.relative_to(package.parent))
    return len(packed.getvalue())


def _bytes(files: Iterator[Path] | list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
