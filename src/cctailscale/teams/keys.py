"""How a lead proves that the team is its own, and a member that it is the same: an Ed25519 key, and a token.

A proof is the lead's signature (RFC 8032) over who asks, who answers, the team and the asker's nonce. Both sides put
in the ids of the nodes as WhoIs gives them, so that whoever hands on another's question gets a proof that is good for
nobody. `cryptography` is loaded by the first key that signs or verifies.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32
# What is signed by this key anywhere else begins with other words.
_PURPOSE = b"cc-tailscale team lead 1\0"
_LENGTH_BYTES = 4
_RANDOM_BYTES = 32


class LeadKey:
    """The key of a team, which its lead alone has. `seed`: its 32 bytes, a secret; nothing else shows them."""

    def __init__(self, seed: bytes) -> None:
        """Raises ValueError: not 32 bytes."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a key has {SEED_BYTES} bytes")
        self.seed = seed

    @classmethod
    def new(cls) -> LeadKey:
        return cls(secrets.token_bytes(SEED_BYTES))

    def __repr__(self) -> str:
        return "<LeadKey>"

    @property
    def public(self) -> str:
        """The public key, 32 bytes in hex, which members pin when they join."""
        return self._private().public_key().public_bytes_raw().hex()

    def prove(self, *, team: str, nonce: str, lead: str, asker: str) -> str:
        """The proof for the node `asker` that the node `lead` leads the team: 64 bytes in hex."""
        return self._private().sign(_statement(team, nonce, lead, asker)).hex()

    def _private(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


def is_proven(public_key: str, signature: str, *, team: str, nonce: str, lead: str, asker: str) -> bool:
    """Whether `signature` is `prove`'s of that team's key, whatever the two strings are."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _statement(team, nonce, lead, asker))
    except (InvalidSignature, ValueError):  # not hex; not 32 bytes
        return False
    return True


def new_nonce() -> str:
    """What a proof is asked for with, once: 32 random bytes in hex."""
    return secrets.token_hex(_RANDOM_BYTES)


def new_token() -> str:
    """A member's token: 32 random bytes in hex. The member alone keeps it."""
    return secrets.token_hex(_RANDOM_BYTES)


def token_digest(token: str) -> str:
    """What the lead keeps of a token, SHA-256 in hex: random as it is, a token needs no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _statement(*fields: str) -> bytes:
    """What is signed. Each field has its length before it, so that no two lists of fields read the same."""
    encoded = [field.encode() for field in fields]
    return _PURPOSE + b"".join(len(field).to_bytes(_LENGTH_BYTES, "big") + field for field in encoded)
