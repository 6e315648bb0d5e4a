"""The outside tools, which `nox -s ecosystem` installs before it cuts the tests off the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ecosystem.outside import Outside

ROOT = Path(__file__).parent.parent.parent
FOLDER = "CCTAILSCALE_NPM"


@pytest.fixture(scope="session")
def outside() -> Outside:
    """What was installed; the test is skipped where nothing could be."""
    found = Outside.found(Path(os.environ.get(FOLDER, ROOT / "build" / "npm")))
    if found is None:
        pytest.skip("the outside tools are not here: `nox -s ecosystem` installs them, if it reaches the npm registry")
    return found
