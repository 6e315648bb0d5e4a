"""What build_notices.py makes of the packages that the extension links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import build_notices
from build_notices import LEGAL_FILE, Part, linked_parts, packages
from build_toolchain import CannotBuild

MIT = "Permission is hereby granted, free of charge, to any person\n"
BSD = "Redistribution and use in source\nand binary forms, with or without\nmodification, are permitted.\n"
ENDORSEMENT = "Neither the name of X nor the\nnames of its contributors may be used.\n"


def package(folder: Path, root: Path, name: str = "example.com/M") -> dict[str, Any]:
    """A package in `folder` of the module in `root`, as `go list -json` prints it."""
    folder.mkdir(parents=True, exist_ok=True)
    module = {"Path": name, "Version": "v1.2.3+incompatible", "Dir": str(root)}
    return {"Dir": str(folder), "ImportPath": name, "Module": module}


def part(name: str, **texts: str) -> Part:
    return Part(name, "v1", f"pkg:golang/{name}@v1", texts)


# ---- what is linked ------------------------------------------------------------------------------------------------


def test_the_objects_that_go_prints_one_after_the_other_are_all_read() -> None:
    assert packages('{"a": {"b": 1}}\n{\n\t"c": "}{"\n}\n') == [{"a": {"b": 1}}, {"c": "}{"}]
    assert packages("") == []


def test_a_module_brings_the_licences_above_its_linked_packages_and_no_others(tmp_path: Path) -> None:
    root = tmp_path / "m"
    linked = package(root / "deep" / "er", root)
    (root / "unlinked").mkdir()
    for place in ("LICENSE", "deep/COPYING.txt", "deep/er/NOTICE", "deep/er/license.go", "unlinked/LICENSE"):
        (root / place).write_text(MIT)
    (tmp_path / "LICENSE").write_text("of something else")
    (found,) = (part for part in linked_parts([linked], "1.26.8") if part.name == "example.com/M")
    assert set(found.texts) == {"LICENSE", "deep/COPYING.txt", "deep/er/NOTICE"}
    assert found.purl == "pkg:golang/example.com/m@v1.2.3%2Bincompatible"


def test_gos_own_library_is_a_part_with_the_licence_of_its_installation(tmp_path: Path) -> None:
    folder = tmp_path / "go" / "src" / "net" / "http"
    folder.mkdir(parents=True)
    (tmp_path / "go" / "LICENSE").write_text(BSD + ENDORSEMENT)
    standard = {"Dir": str(folder), "ImportPath": "net/http", "Standard": True}
    (found,) = (part for part in linked_parts([standard], "1.26.8") if part.name == "stdlib")
    assert found.version == "1.26.8"
    assert set(found.texts) == {"LICENSE"}


def test_our_own_module_is_not_a_part_and_cffi_is(tmp_path: Path) -> None:
    ours = {"Dir": str(tmp_path), "ImportPath": "ours", "Module": {"Path": "ours", "Main": True, "Dir": str(tmp_path)}}
    (cffi,) = linked_parts([ours], "1.26.8")
    assert cffi.name == "cffi"
    assert cffi.licences == ["MIT-0"]


def test_a_module_without_a_licence_file_ends_the_build_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"there is none with example\.com/M"):
        linked_parts([package(tmp_path, tmp_path)], "1.26.8")


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "LICENCE",
        "license.txt",
        "LICENSE.md",
        "LICENSE-MIT",
        "LICENSE.BSD",
        "COPYING",
        "NOTICE",
        "PATENTS",
        "AUTHORS",
    ],
)
def test_legal_files_are_known_by_their_names(name: str) -> None:
    assert LEGAL_FILE.fullmatch(name)


@pytest.mark.parametrize("name", ["license.go", "license_test.go", "LICENSE.go", "licenses", "README.md", "authorship"])
def test_code_about_licences_is_no_licence(name: str) -> None:
    assert not LEGAL_FILE.fullmatch(name)


# ---- which licence it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, "MIT"),
        (f"MIT No Attribution\n\n{MIT}", "MIT-0"),
        (BSD, "BSD-2-Clause"),
        (BSD + ENDORSEMENT, "BSD-3-Clause"),
        (BSD + "(3) The name of the author may not be used to\nendorse products.\n", "BSD-3-Clause"),
        ("                Apache License\n          Version 2.0, January 2004\n", "Apache-2.0"),
        ("Permission to use, copy, modify, and distribute this software\nfor any purpose", "ISC"),
    ],
)
def test_a_licence_is_recognised_by_its_words_wherever_its_lines_break(text: str, licence: str) -> None:
    assert part("a", LICENSE=text).licences == [licence]


def test_a_part_may_be_under_several_licences_and_an_unknown_one_is_none() -> None:
    assert part("a", LICENSE=MIT, NOTICE=BSD).licences == ["BSD-2-Clause", "MIT"]
    assert part("a", LICENSE="All rights reserved.").licences == []


# ---- the two files -------------------------------------------------------------------------------------------------


def test_notices_name_every_part_and_hold_a_shared_text_once() -> None:
    text = build_notices.notices([part("a", LICENSE=MIT), part("b", LICENSE=f"\n{MIT}\n"), part("c", COPYING=BSD)])
    assert "\na v1: MIT\nb v1: MIT\nc v1: BSD-2-Clause\n" in text
    assert text.count(MIT) == 1
    assert f"\na v1 (LICENSE)\nb v1 (LICENSE)\n\n{MIT}" in text
    assert f"\nc v1 (COPYING)\n\n{BSD}" in text


def test_the_sbom_has_what_is_linked_with_its_version_and_what_is_required_without() -> None:
    document = json.loads(build_notices.sbom("1.2.0", [part("a", LICENSE=MIT)], ["mcp>=2.3,<3", "cffi>=2.1"]))
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/cc-tailscale@1.2.0"
    linked, *required = document["components"]
    assert (linked["purl"], linked["licenses"]) == ("pkg:golang/a@v1", [{"license": {"id": "MIT"}}])
    assert [(component["purl"], "version" in component) for component in required] == [
        ("pkg:pypi/cffi", False),
        ("pkg:pypi/mcp", False),
    ]
    (tree,) = document["dependencies"]
    assert tree["dependsOn"] == [component["bom-ref"] for component in document["components"]]


def test_two_builds_give_the_same_two_files() -> None:
    parts = [part("a", LICENSE=MIT)]
    assert build_notices.sbom("1", parts, ["b", "a"]) == build_notices.sbom("1", parts, ["a", "b"])
