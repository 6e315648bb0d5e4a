"""What the extension links that others wrote, as two files of the wheel: their licences, and an SBOM.

The parts are the Go modules of the packages that `go list -deps` names for this platform, Go's own library, and the C
code that cffi writes around the archive. No list of them is kept by hand.

- `NOTICES` has the text of every licence file that lies above a linked package, up to its module's root: a module may
  hold code of third parties in a folder of its own.
- `SBOM` is CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/), for `dist-info/sboms/` (PEP 770). It has neither time
  nor serial number, so that two builds of one source give the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from build_toolchain import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NOTICES = "THIRD-PARTY-NOTICES.txt"
SBOM = "cc-tailscale.cdx.json"

# What `go list -json` is asked for.
PACKAGE_FIELDS = "Dir,EmbedFiles,ImportPath,Module,Standard"

# Names of files with a licence, or with the holders of a copyright that a licence refers to.
LEGAL_FILE = re.compile(
    r"(licen[cs]e|copying|copyright|notice|patents|authors)([.-](apache|bsd|isc|md|mit|txt))*", re.IGNORECASE
)

# By what in its text, with every run of spaces as one, a licence is recognised.
_BSD = "Redistribution and use in source and binary forms"
_NO_ENDORSEMENT = "([Nn]either the names? of|may not be used to endorse)"
LICENCES = {
    "Apache-2.0": r"Apache License,? Version 2\.0",
    "BSD-2-Clause": f"{_BSD}(?!.*{_NO_ENDORSEMENT})",
    "BSD-3-Clause": f"{_BSD}.*{_NO_ENDORSEMENT}",
    "ISC": r"Permission to use, copy, modify, and(/or)? distribute this software",
    "MIT": r"(?<!MIT No Attribution )Permission is hereby granted, free of charge",
    "MIT-0": r"MIT No Attribution Permission is hereby granted, free of charge",
}


class Part(NamedTuple):
    """Something of others in the extension: where it comes from, and its legal files by name."""

    name: str
    version: str
    purl: str
    texts: dict[str, str]

    @property
    def licences(self) -> list[str]:
        """The SPDX identifiers of the licences that its texts are, sorted; empty if none is known."""
        texts = [" ".join(text.split()) for text in self.texts.values()]
        return [name for name, pattern in LICENCES.items() if any(re.search(pattern, text) for text in texts)]


def packages(listing: str) -> list[dict[str, Any]]:
    """The JSON objects that `go list -json` prints one after the other."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    rest = listing.strip()
    while rest:
        package, end = decoder.raw_decode(rest)
        found.append(package)
        rest = rest[end:].lstrip()
    return found


def linked_parts(packages: Iterable[dict[str, Any]], go_release: str) -> list[Part]:
    """The parts of an extension that links these packages, sorted by name.

    Raises CannotBuild for one without any licence file: the wheel has to carry it.
    """
    folders: dict[Path, set[Path]] = {}  # by module
    modules: dict[Path, dict[str, str]] = {}
    for package in packages:
        module = package.get("Module", {})
        if module.get("Main"):
            continue
        # The standard library is no module. Its licence lies in $GOROOT, above its folder.
        folder = Path(package["Dir"])
        root = Path(module["Dir"]) if module else _goroot(folder, package["ImportPath"])
        modules[root] = module or {"Path": "stdlib", "Version": go_release}
        folders.setdefault(root, set()).add(folder)
    parts = [_cffi()]
    for root, module in modules.items():
        texts = {
            str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in _legal_files(root, folders[root])
        }
        parts.append(Part(module["Path"], module["Version"], _purl("golang", module["Path"], module["Version"]), texts))
    without = [part.name for part in parts if not part.texts]
    if without:
        raise CannotBuild(
            f"the wheel has to carry the licences of what it links, and there is none with {', '.join(without)}; "
            "if that is Go's stdlib, take Go from https://go.dev/dl/."
        )
    return sorted(parts)


def _goroot(folder: Path, import_path: str) -> Path:
    """$GOROOT, from the folder of a package of the standard library."""
    return folder.parents[import_path.count("/") + 1]


def _legal_files(root: Path, folders: Iterable[Path]) -> list[Path]:
    """The legal files of the folders and of those above them, up to `root`, sorted."""
    above = {
        root,
        *(parent for folder in folders for parent in (folder, *folder.parents) if parent.is_relative_to(root)),
    }
    return sorted(
        file for folder in above for file in folder.iterdir() if LEGAL_FILE.fullmatch(file.name) and file.is_file()
    )


def _cffi() -> Part:
    """cffi, some of whose own C code is in what it writes."""
    distribution = importlib.metadata.distribution("cffi")
    files = [file for file in distribution.files or () if LEGAL_FILE.fullmatch(file.name)]
    texts = {file.name: file.read_text(encoding="utf-8") for file in files}
    return Part("cffi", distribution.version, _purl("pypi", "cffi", distribution.version), texts)


def _purl(kind: str, name: str, version: str = "") -> str:
    """A package URL (https://github.com/package-url/purl-spec); names of Go modules and of PyPI are in lower case."""
    return f"pkg:{kind}/{quote(name.lower())}" + (f"@{quote(version, safe='')}" if version else "")


# ---- the two files -------------------------------------------------------------------------------------------------


def notices(parts: Sequence[Part]) -> str:
    """The parts with their licences, and each text once, under the names of those that it belongs to."""
    owners: dict[str, list[str]] = {}
    for part in parts:
        for file, text in part.texts.items():
            owners.setdefault(text.strip() + "\n", []).append(f"{part.name} {part.version} ({file})")
    return "".join(_paragraphs(parts, owners))


def _paragraphs(parts: Sequence[Part], owners: dict[str, list[str]]) -> Iterator[str]:
    yield "cc-tailscale's extension contains the following software of others.\n\n"
    for part in parts:
        yield f"{part.name} {part.version}: {', '.join(part.licences) or 'see below'}\n"
    for text, names in owners.items():
        yield "\n" + "=" * 100 + "\n" + "\n".join(names) + "\n\n" + text


def sbom(version: str, parts: Sequence[Part], requirements: Sequence[str]) -> str:
    """The SBOM of a wheel of this version: what its extension links, and what is installed beside it.

    `requirements` are those of the Python package (PEP 508). The installer picks their versions, so the SBOM has none.
    """
    ours = _purl("pypi", "cc-tailscale", version)
    linked = [
        {
            "type": "library",
            "bom-ref": f"linked:{part.purl}",
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            "licenses": [{"license": {"id": licence}} for licence in part.licences],
        }
        for part in parts
    ]
    required = [
        {
            "type": "library",
            "bom-ref": _purl("pypi", name),
            "name": name,
            "purl": _purl("pypi", name),
            "description": f"Not in the wheel: installed beside it, in a version that fits {requirement!r}.",
        }
        for requirement in sorted(requirements)
        for name in re.findall(r"^[\w.-]+", requirement)
    ]
    components = [*linked, *required]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": "cc-tailscale",
                "version": version,
                "purl": ours,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": ours, "dependsOn": [component["bom-ref"] for component in components]}],
    }
    return json.dumps(document, indent=1) + "\n"
