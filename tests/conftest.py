"""Fixtures for all tests. The integration tests' network is made by their caller: see CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.localnet import Localnet

# Its own limit is 200 ms an example: a busy machine is no failure, and each test has its 60 seconds.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio, which aiohttp needs."""
    return "asyncio"


@pytest.fixture(scope="session")
def tailnet() -> Iterator[Localnet]:
    """A tailnet with the peer "web", shared by all tests that leave it as they found it."""
    with Localnet.started() as tailnet, tailnet.peer("web"):
        yield tailnet


@pytest.fixture
def own_tailnet() -> Iterator[Localnet]:
    """A tailnet for this test alone, which may break it; without peers."""
    with Localnet.started() as tailnet:
        yield tailnet


@pytest.fixture
def patient_tailnet() -> Iterator[Localnet]:
    """A tailnet that keeps ephemeral devices that are away, as the real one does for half an hour or more."""
    with Localnet.started("-ephemeral-timeout", "1h") as tailnet, tailnet.peer("web"):
        yield tailnet


@pytest.fixture
def environ(tailnet: Localnet, tmp_path: Path) -> dict[str, str]:
    """The environment of an agent that joins `tailnet` as alice@example.com."""
    return environ_for(tailnet, tmp_path)


@pytest.fixture
def own_environ(own_tailnet: Localnet, tmp_path: Path) -> dict[str, str]:
    """The environment of an agent that joins `own_tailnet` as alice@example.com."""
    return environ_for(own_tailnet, tmp_path)


def environ_for(tailnet: Localnet, folder: Path) -> dict[str, str]:
    project = folder / "project"
    project.mkdir(exist_ok=True)
    return {
        "TS_AUTHKEY": tailnet.auth_key,
        "TS_CONTROL_URL": tailnet.control_url,
        "TS_STATE_DIR": str(folder / "state"),
        "CLAUDE_PROJECT_DIR": str(project),
        "HOME": str(folder),
        "USER": "tester",
    }
