"""Numbers for people: no share is written with an exponent, and none that is not zero as zero."""

import pytest

from permafrost.probes.results.formatting import percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (3.1e-7, "<0.01"), (9.9e-5, "<0.01"), (1e-4, "0.01"), (0.0227, "2.27"), (0.9999, "100"), (1, "100"),
     (12.34, "1,234"), (1.5e6, "150,000,000")],
)  # fmt: skip
def test_a_share_is_a_percentage_of_three_digits(share, text):
    assert percent(share) == f"{text}\u00a0%"
