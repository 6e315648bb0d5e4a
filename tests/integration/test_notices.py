"""The notices and the SBOM against what Go itself wrote into the extension about what it links."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

import build_ffi
import build_notices
import build_toolchain

# What may be in the extension without a word from a lawyer.
PERMISSIVE = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0"}

# Packages with embedded files, which may be of somebody else than the module. These were looked at: text of Tailscale's
# own, and htmx (0BSD, which asks for no notice) in a page for debugging.
EMBEDDING = {"tailscale.com", "tailscale.com/net/dns", "tailscale.com/net/dnsfallback", "tailscale.com/util/eventbus"}


@pytest.fixture(scope="module")
def go() -> build_toolchain.Go:
    return build_toolchain.need_go()


@pytest.fixture(scope="module")
def packages(go: build_toolchain.Go) -> list[dict[str, Any]]:
    return build_ffi.list_packages(go, build_toolchain.go_environment())


@pytest.fixture(scope="module")
def parts(go: build_toolchain.Go, packages: list[dict[str, Any]]) -> list[build_notices.Part]:
    return build_notices.linked_parts(packages, go.release)


def test_every_module_in_the_extension_has_its_licence_in_the_notices_and_its_place_in_the_sbom(
    go: build_toolchain.Go, parts: list[build_notices.Part]
) -> None:
    command = [go.command, "version", "-m", build_ffi.PACKAGE / build_ffi.EXTENSION]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    fields = [line.split() for line in lines]
    linked = {(name, version) for kind, name, version, *_ in (f for f in fields if len(f) >= 3) if kind == "dep"}
    assert len(linked) > 20
    assert {(part.name, part.version) for part in parts} == linked | {
        ("stdlib", lines[0].split()[-1].removeprefix("go")),
        ("cffi", next(part.version for part in parts if part.name == "cffi")),
    }
    notices, sbom = build_notices.notices(parts), build_notices.sbom("1", parts, [])
    for name, version in linked:
        assert f"\n{name} {version} (LICENSE" in notices
        assert f'"name": "{name}",\n   "version": "{version}"' in sbom


def test_what_the_extension_links_is_under_licences_that_ask_for_no_more_than_a_notice(
    parts: list[build_notices.Part],
) -> None:
    assert {part.name: part.licences for part in parts if not part.licences or set(part.licences) - PERMISSIVE} == {}


def test_no_embedded_file_is_there_whose_licence_nobody_looked_at(packages: list[dict[str, Any]]) -> None:
    assert {package["ImportPath"] for package in packages if package.get("EmbedFiles")} == EMBEDDING
