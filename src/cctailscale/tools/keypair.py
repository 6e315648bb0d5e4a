"""This node's certificate and its private key into two files of the project."""

from pathlib import Path, PurePosixPath

from cctailscale.savefile import saving
from cctailscale.tailnet.attempt import Report
from cctailscale.tailnet.certificate import BEGIN, own_pair
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.results import Certificate

KEY_MODE = 0o600
CHAIN_ENDINGS = (".crt", ".pem", ".cer")


async def save_pair(
    device: Device, domain: str | None, project: Path, save_to: str, seconds: float, report: Report
) -> Certificate:
    """Writes the chain to `save_to` and the key beside it, only for its owner to read; neither may exist yet.

    The two places are tried before a certificate is asked for. Raises what `own_pair` and `saving` raise; then there is
    neither file (the key's alone, should something take the chain's place in the last moment).
    """
    chain_path, key_path = paths_of(save_to)
    async with saving(project, chain_path) as chain, saving(project, key_path, mode=KEY_MODE) as key:
        found, pem = await own_pair(device, domain, seconds, report)
        begin = pem.index(BEGIN)
        await key.write(pem[:begin])
        await chain.write(pem[begin:])
        await key.keep()
        await chain.keep()
    found.saved = [chain_path, key_path]
    return found


def paths_of(save_to: str) -> tuple[str, str]:
    """Where chain and key go: "tls/web.crt" and "tls/web.key"; a name without such an ending gets both."""
    path = PurePosixPath(save_to)
    if path.suffix in CHAIN_ENDINGS:
        return save_to, str(path.with_suffix(".key"))
    return f"{save_to}.crt", f"{save_to}.key"
