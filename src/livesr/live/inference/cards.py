"""NVIDIA's cards by the names that people know them by.

Owns the table from names to compute capabilities. Asks no driver: a plan may be made on one
computer for the card of another.

References
----------
NVIDIA, "CUDA GPU Compute Capability" (developer.nvidia.com/cuda-gpus).
"""

from __future__ import annotations

import re

from livesr.base.errors import UsageError, suggestion

GENERATIONS = {"turing": 75, "ampere": 86, "ada": 89, "blackwell": 120}
"""Of the cards that stand in workstations; the A100 is an Ampere of 80, GB10 a Blackwell of 121."""

FP8_SINCE = 89
"""Compute capability from which a card computes FP8: Ada, Hopper, Blackwell."""

# The first that fits counts: "RTX 6000 Ada" before "RTX 6000", which is a Turing.
_CARDS = (
    (r"gb10|dgx spark", 121),
    (r"blackwell|rtx pro \d{4}", 120),
    (r"ada\b|ada lovelace|\bl4\b|\bl40s?\b", 89),
    (r"\b(h100|h200|gh200|hopper)\b", 90),
    (r"\b(b100|b200|gb200)\b", 100),
    (r"\ba(100|30)\b", 80),
    (r"\brtx a\d{3,4}\b|\ba(2|10|16|40)\b|\brtx 30[5-9]0\b", 86),
    (r"\brtx 50[5-9]0\b", 120),
    (r"\brtx 40[5-9]0\b", 89),
    (r"\brtx 20[5-9]0\b|\bgtx 16[3-6]0\b|quadro rtx|titan rtx|\bt4\b|\brtx [3-8]000\b", 75),
    (r"ampere", 86),
    (r"turing", 75),
)


def capability_of(card: str) -> int:
    """Return the compute capability of a card, a generation or a capability.

    "RTX 4090", "ada", "8.9" and "sm_89" are 89.

    Raises
    ------
    UsageError
        If the name is not known.
    """
    name = re.sub(r"[\s_-]+", " ", card.strip().lower())
    if number := re.fullmatch(r"(?:sm ?)?(\d{1,2})\.?(\d)", name):
        return 10 * int(number[1]) + int(number[2])
    name = re.sub(r"\b(rtx|gtx)(\d)", r"\1 \2", name)
    name = re.sub(r"^(\d{4})\b", r"rtx \1", name)
    for pattern, capability in _CARDS:
        if re.search(pattern, name):
            return capability
    raise UsageError(
        f"No card {card!r} is known.{suggestion(name, list(GENERATIONS))} Name it as 'RTX 4090',"
        f" its generation ({', '.join(GENERATIONS)}), or its compute capability, such as 8.9"
        " (nvidia-smi --query-gpu=compute_cap --format=csv)."
    )
