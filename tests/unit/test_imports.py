"""The package's shape: which module may know of which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src"
PACKAGE = "cctailscale"

# From the top down. A part imports parts below its own line, and modules of its own.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"commands"}),
    frozenset({"app"}),
    frozenset({"server"}),
    frozenset({"tools", "stdio"}),
    frozenset({"agents"}),
    frozenset({"tailnet", "teams"}),
    frozenset({"audit"}),
    frozenset({"config", "documents", "logs", "results", "savefile", "sqlitefile", "statedir"}),
    frozenset({"auditfile", "authkey", "environment", "naming", "redact"}),
    frozenset({"call", "errors"}),
)
MAY_KNOW_MCP = {"server", "tools", "app"}
EXTENSION = "_libtailscale"
EXTENSION_KNOWN_BY = f"{PACKAGE}.tailnet.binding"


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


MODULES = modules()


def part(module: str) -> str | None:
    """The part of the package that a module belongs to; None for the package itself (its version)."""
    return module.split(".")[1] if "." in module else None


def imported(module: str) -> set[str]:
    """What a module imports anywhere in it, for types too: full names, of our own modules the module."""
    names: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively, which this test does not read"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return names


def layer(name: str) -> int:
    found = [number for number, parts in enumerate(LAYERS) if name in parts]
    assert found, f"{name} has no place in LAYERS"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    mine = part(module)
    for name in imported(module):
        theirs = part(name) if name in MODULES else None
        if mine is None or theirs is None or theirs == mine:
            continue
        assert layer(theirs) > layer(mine), f"{module} imports {name}, which is not below it"


def test_agents_know_the_tailnet_teams_and_what_lies_below_alone() -> None:
    known = {
        part(name)
        for module in MODULES
        if part(module) == "agents"
        for name in imported(module)
        if name in MODULES and name != PACKAGE  # whose version they tell
    }
    below = {"audit", "call", "config", "documents", "naming", "results", "sqlitefile", "statedir", "errors"}
    assert known - {"agents"} <= {"tailnet", "teams"} | below


def test_the_package_itself_imports_none_of_its_modules() -> None:
    assert not [name for name in imported(PACKAGE) if name.startswith(PACKAGE)]


@pytest.mark.parametrize("module", MODULES)
def test_only_server_tools_and_app_know_mcp(module: str) -> None:
    if part(module) not in MAY_KNOW_MCP:
        assert not [name for name in imported(module) if name.split(".")[0] in ("mcp", "mcp_types")]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_binding_touches_the_extension(module: str) -> None:
    touches = [
        node
        for node in ast.walk(MODULES[module])
        if (isinstance(node, ast.alias | ast.Attribute | ast.Name | ast.ImportFrom) and EXTENSION in ast.unparse(node))
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(EXTENSION))
    ]
    assert bool(touches) == (module == EXTENSION_KNOWN_BY), [ast.unparse(node) for node in touches]


def test_only_config_reads_the_environment() -> None:
    readers = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb", "os.getenv")
    }
    # The command hands os.environ over, which is the only mention of it.
    assert readers <= {f"{PACKAGE}.cli", f"{PACKAGE}.config"}


def test_nothing_heavy_is_loaded_by_the_time_the_server_is_ready() -> None:
    program = "import cctailscale.cli, cctailscale.app, sys; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(run.stdout.split())
    assert f"{PACKAGE}.server" in loaded
    heavy = {"aiohttp", "aiohttp_socks", "python_socks", "dns", "truststore", f"{PACKAGE}.{EXTENSION}"}
    heavy |= {"rich", f"{PACKAGE}.commands"}  # for people alone
    heavy |= {f"{PACKAGE}.teams", f"{PACKAGE}.agents.teamwork"}  # for who wants teams
    assert not loaded & heavy


def test_nothing_but_the_standard_library_and_little_of_our_own_is_loaded_for_the_hook() -> None:
    program = "import cctailscale.cli, cctailscale.commands.inbox; print(*sorted(sys.modules))"
    # -S: no other package can be found at all.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {program}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    ours = {name.removeprefix(f"{PACKAGE}.") for name in run.stdout.split() if name.startswith(f"{PACKAGE}.")}
    named = {"agents", "agents.unread", "cli", "commands", "commands.inbox", "environment", "naming", "statedir"}
    assert {name for name in ours if part(f"{PACKAGE}.{name}") != "errors"} == named
