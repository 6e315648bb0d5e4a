"""What sessions that were killed have left: their devices are logged out, their directories removed."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread

from cctailscale import statedir
from cctailscale.config import Settings
from cctailscale.errors import ApprovalNeeded, CcTailscaleError, KeyRefused, LockedOut, LoginNeeded
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.session import Session

log = logging.getLogger(__name__)

# For each step of a device that is taken up once more, only to be logged out.
STEP_SECONDS = 10.0


async def sweep(settings: Settings) -> None:
    """Clears the state root of what no living process has. Never raises; what stays, a later start finds."""
    try:
        directories = await anyio.to_thread.run_sync(statedir.abandoned, settings.state_dir)
        with ExitStack() as locked:
            for directory in directories:
                locked.enter_context(directory)
            for directory in directories:
                with directory:  # each is let go of as soon as it is done
                    await _sweep_one(settings, directory)
    except CcTailscaleError as error:
        log.info("what killed sessions left stays for now: %s", error.happened)


async def _sweep_one(settings: Settings, directory: statedir.SessionDir) -> None:
    try:
        for state in Session(directory).kept_states():
            await _log_out(settings, directory, state)
        await anyio.to_thread.run_sync(directory.remove)
    except CcTailscaleError as error:
        log.info("%s, of a killed session, is left for later: %s", directory.hostname, error.happened)
    except Exception:
        log.exception("the sweep of %s failed in an unforeseen way", directory.hostname)


async def _log_out(settings: Settings, directory: statedir.SessionDir, state: Path) -> None:
    """Takes the device up, without a key (one that control has removed by now is not made anew), and logs it out."""
    from cctailscale.tailnet.device import Device

    config = NodeConfig(
        hostname=directory.hostname,
        state_dir=state,
        control_url=directory.record.control_url,
        ephemeral=True,
        verbose=settings.verbose,
        redact=settings.secrets(),
    )
    async with Device.opened(config, "", STEP_SECONDS, settings.ssl_cert_file) as device:
        try:
            await device.joined(STEP_SECONDS)
        except (LoginNeeded, KeyRefused):
            log.debug("%s is gone from the tailnet already", directory.hostname)
            return
        except (ApprovalNeeded, LockedOut):
            pass  # control has it, and that is enough
        await device.handle.logout(STEP_SECONDS)
