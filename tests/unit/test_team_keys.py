"""How a lead proves itself: what is signed, what is not taken, and what a key and a token show."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.teams.keys import LeadKey, is_proven, new_nonce, new_token, token_digest

KEY = LeadKey(bytes(range(32)))
ASKED = {"team": "team-1", "nonce": "ab" * 32, "lead": "nLEAD", "asker": "nASKER"}


def test_a_proof_is_good_for_what_was_asked() -> None:
    assert is_proven(KEY.public, KEY.prove(**ASKED), **ASKED)


@pytest.mark.parametrize("field", ASKED)
def test_a_proof_is_good_for_no_other_team_nonce_lead_or_asker(field: str) -> None:
    """So that one who claims the team cannot hand on the member's question to the true lead and its answer back."""
    assert not is_proven(KEY.public, KEY.prove(**ASKED), **{**ASKED, field: ASKED[field] + "x"})


def test_a_proof_by_another_key_is_none() -> None:
    assert not is_proven(KEY.public, LeadKey.new().prove(**ASKED), **ASKED)


def test_what_is_signed_names_its_purpose_and_the_length_of_each_field() -> None:
    """The bytes of docs/agent-protocol.md, put together by hand."""
    statement = (
        b"cc-tailscale team lead 1\0\0\0\0\x06team-1\0\0\0\x40" + b"ab" * 32 + b"\0\0\0\x05nLEAD\0\0\0\x06nASKER"
    )
    assert KEY.prove(**ASKED) == Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(statement).hex()
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(KEY.public)).verify(bytes.fromhex(KEY.prove(**ASKED)), statement)


@given(st.lists(st.text(max_size=6), min_size=4, max_size=4), st.lists(st.text(max_size=6), min_size=4, max_size=4))
def test_no_two_questions_have_the_same_proof(one: list[str], other: list[str]) -> None:
    first, second = (dict(zip(ASKED, fields, strict=True)) for fields in (one, other))
    assert is_proven(KEY.public, KEY.prove(**first), **second) == (one == other)


def test_moving_letters_from_one_field_to_the_next_is_another_question() -> None:
    moved = {**ASKED, "lead": "nLEADn", "asker": "ASKER"}
    assert not is_proven(KEY.public, KEY.prove(**ASKED), **moved)


@given(st.text(max_size=140), st.text(max_size=140))
def test_whatever_a_peer_sends_as_key_and_signature_is_no_proof_and_no_error(key: str, signature: str) -> None:
    assert not is_proven(key, signature, **ASKED)
    assert not is_proven(KEY.public, signature, **ASKED)
    assert not is_proven(key, KEY.prove(**ASKED), **ASKED)


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_a_signature_with_one_bit_changed_is_no_proof(at: int) -> None:
    signature = bytearray.fromhex(KEY.prove(**ASKED))
    signature[at] ^= 1
    assert not is_proven(KEY.public, signature.hex(), **ASKED)


def test_a_key_comes_back_from_its_seed_and_shows_it_nowhere() -> None:
    key = LeadKey.new()
    assert LeadKey(key.seed).public == key.public
    assert key.public != LeadKey.new().public
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in f"{key}{key!r}"


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_size_is_refused_without_being_shown(seed: bytes) -> None:
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        LeadKey(seed)


def test_nonces_and_tokens_are_32_random_bytes() -> None:
    for new in (new_nonce, new_token):
        made = {new() for _ in range(100)}
        assert len(made) == 100
        assert {len(bytes.fromhex(each)) for each in made} == {32}


def test_a_token_is_kept_as_its_sha_256() -> None:
    # FIPS 180-2, B.1: of "abc".
    assert token_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_cryptography_is_loaded_by_the_first_proof_alone() -> None:
    program = (
        "import sys; from cctailscale.teams import keys, places; key = keys.LeadKey.new(); keys.new_token()\n"
        "before = 'cryptography' in sys.modules; key.public; print(before, 'cryptography' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["False", "True"]
