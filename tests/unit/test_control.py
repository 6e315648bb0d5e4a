"""The time that control tells, beside this machine's."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.tailnet.control import clock_ahead


@given(st.integers(0, 4_000_000_000), st.floats(-90_000, 90_000))
def test_the_difference_is_that_of_the_clocks_but_for_the_second_that_the_date_lacks(told: int, ahead: float) -> None:
    found = clock_ahead(formatdate(told, usegmt=True), told + 0.5 + ahead)
    assert found is not None
    assert abs(found - ahead) <= 1.05


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Nov 2026 09:31:40 GMT"])
def test_what_is_no_date_tells_nothing(date: str) -> None:
    assert clock_ahead(date, 0) is None
