"""What a reason is counted as is asked in one place, and what a run writes is what is asked for."""

from __future__ import annotations

import pytest

from livesr.formats import skips

ERROR = ValueError("dark: raw frames missing")


@pytest.mark.parametrize(
    ("reason", "lacks", "waits", "refused"),
    [
        (skips.RAW_MISSING, True, False, False),
        (skips.of_part("561", skips.RAW_MISSING), True, False, False),
        (skips.PLANES_MISSING, True, False, False),
        (skips.none_yet("561"), False, True, False),
        (skips.of_part("488", skips.none_yet("561")), False, True, False),
        (skips.refused(ERROR), False, False, True),
        (skips.of_part("488", skips.refused(ValueError("dark"))), False, False, False),
        ("a neighbour was dropped", False, False, False),
        ("refusedly slow", False, False, False),
    ],
)
def test_a_reason_is_told_from_others(reason: str, lacks: bool, waits: bool, refused: bool) -> None:
    asked = skips.lacks_raw(reason), skips.waits(reason), skips.is_refused(reason)
    assert asked == (lacks, waits, refused)


def test_stores_that_there_are_are_read_as_before() -> None:
    assert skips.RAW_MISSING == "raw frames missing"
    assert skips.of_part("561", skips.RAW_MISSING) == "channel 561: raw frames missing"
    assert skips.none_yet("561") == "channel 561 has no frame yet"
    assert skips.refused(ERROR) == f"refused: {ERROR}"
