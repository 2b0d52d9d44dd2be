"""Damage to what was valid.

For files and messages that must be refused in a sentence or understood, whatever is in them.

`LIVESR_EXAMPLES=5000 pytest tests/test_damaged_input.py` tries as many of each; the tests as such
try a few.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_NUMBERS = st.one_of(
    st.sampled_from(
        [
            0,
            -1,
            1,
            2,
            3,
            1e-9,
            1e9,
            1e300,
            2**31,
            2**63,
            10**30,
            float("nan"),
            float("inf"),
            -float("inf"),
        ]
    ),
    st.integers(-100, 100_000),
    st.floats(-1e6, 1e6),
)
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXT)
_ODD = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


def examples(few: int, *, shrink: bool = True) -> Callable[[Any], Any]:
    """Try `few` examples, or as many as LIVESR_EXAMPLES says; a slow computer is no failure.

    Without `shrink` a failure is reported as it was found: where an example takes a second, a
    smaller one takes minutes.
    """
    count = int(os.environ.get("LIVESR_EXAMPLES", few))
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    phases = [phase for phase in Phase if shrink or phase is not Phase.shrink]
    return settings(max_examples=count, deadline=None, suppress_health_check=slow, phases=phases)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below `value`, as keys and indices."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _damage(draw: Any, data: Any) -> None:
    """Change, take away, repeat or rename one thing somewhere in `data`."""
    places = list(_places(data))
    if not places:
        return
    *path, key = draw(st.sampled_from(places))
    parent = data
    for step in path:
        parent = parent[step]
    how = draw(
        st.sampled_from(
            ["odd", "odd", "odd", "number", "number", "gone", "again", "other", "renamed"]
        )
    )
    if how == "odd":
        parent[key] = draw(_ODD)
    elif how == "number":
        parent[key] = draw(_NUMBERS)
    elif how == "gone":
        del parent[key]
    elif how == "again" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif how == "renamed" and isinstance(parent, dict):
        parent[draw(_TEXT)] = parent.pop(key)
    else:  # something that belongs elsewhere
        *other, last = draw(st.sampled_from(places))
        value = data
        for step in (*other, last):
            value = value[step] if isinstance(value, dict | list) else value
        parent[key] = copy.deepcopy(value)


@st.composite
def damaged(draw: Any, valid: Any, most: int = 3) -> Any:
    """A copy of `valid` (dicts, lists, plain values) with up to `most` damages."""
    data = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        _damage(draw, data)
    return data
