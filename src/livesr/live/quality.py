"""The one table that says what a prediction is worth: *good*, *check* or *do not use*.

Owns the rules: each is a reason, the word that follows from it, and the sentence that is shown.
Numbers come from elsewhere as `Evidence`; a new reason is one `Rule`. docs/reliability.md says how
often each word is right (`scripts/warnings_roc.py` and `scripts/trust_table.py` measure it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from livesr.base.quality import Judgement, Quality, Verdict, worst

CHECK, DO_NOT_USE = Quality.CHECK, Quality.DO_NOT_USE


@dataclass(frozen=True, slots=True)
class ChannelEvidence:
    """What is known of one channel of a frame.

    Attributes
    ----------
    label : what the channel shows
    weak : whether it is too weak beside the others
    absent : whether it has no more light than it is given where its structure is absent
    audit_pcc : PCC with its true channel at the last audit; 1 where none was scored
    """

    label: str
    weak: bool = False
    absent: bool = False
    audit_pcc: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one frame.

    Attributes
    ----------
    channels : each channel
    finite : whether the network returned numbers
    residual, residual_limit : of the frame, and the largest of validation; None where nothing was
        validated
    unlike : whether its input is unlike the frames of training
    unknown : whether more of its light than is usual belongs to no structure that the engine knows
    unknown_than : than what, where it is usual on this rig; "" where it is on any
    saturated : whether the camera saturates
    unresolved : why the measurement is widefield, "" if it is not
    said : what belongs to every frame of the run: optics, modality, replaced runtimes
    """

    channels: Sequence[ChannelEvidence] = ()
    finite: bool = True
    residual: float = 0.0
    residual_limit: float | None = math.inf
    unlike: bool = False
    unknown: bool = False
    unknown_than: str = ""
    saturated: bool = False
    unresolved: str = ""
    said: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason why a frame is not good.

    Attributes
    ----------
    name : of the reason, as docs/reliability.md has it
    word : what follows
    holds : whether it is so
    sentence : what is said; the same for the same fact, so that frames can be counted
    """

    name: str
    word: Quality
    holds: Callable[[Evidence], bool]
    sentence: Callable[[Evidence], str]


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """A reason why one channel is not good; as `Rule`, of the frame and the channel."""

    name: str
    word: Quality
    holds: Callable[[Evidence, ChannelEvidence], bool]
    sentence: Callable[[Evidence, ChannelEvidence], str]


UNUSABLE_PCC = 0.5
"""PCC with the truth below which a channel is lost, as `livesr.evaluation.limits` has it."""

FRAME_RULES: tuple[Rule, ...] = (
    Rule(
        "no number",
        DO_NOT_USE,
        lambda e: not e.finite,
        lambda e: (
            "The network returned values that are no numbers; they are stored as 0. Try"
            " --precision f32."
        ),
    ),
    Rule(
        "residual",
        DO_NOT_USE,
        lambda e: e.finite and e.residual_limit is not None and e.residual > e.residual_limit,
        lambda e: (
            f"The residual is above the {e.residual_limit:.3g} of validation: the channels do not"
            " account for the light."
        ),
    ),
    Rule(
        "not validated",
        CHECK,
        lambda e: e.residual_limit is None,
        lambda e: (
            "The engine was not validated: its manifest has no residual of known frames, so that"
            " nothing tells where it is right. Compare with the measurement."
        ),
    ),
    Rule(
        "input unlike",
        CHECK,
        lambda e: e.unlike,
        lambda e: (
            "The input is unlike the frames that the engine was trained on: what is shown of it"
            " may be wrong."
        ),
    ),
    Rule(
        "unknown structure",
        CHECK,
        lambda e: e.unknown,
        lambda e: (
            "There is light of a structure that the engine does not know"
            f"{e.unknown_than and f', {e.unknown_than}'}: what it shows there may be wrong."
        ),
    ),
    Rule(
        "saturated",
        CHECK,
        lambda e: e.saturated,
        lambda e: (
            "The camera saturates: the brightest structures are dimmer than they are. Expose less."
        ),
    ),
    Rule(
        "unresolved",
        DO_NOT_USE,
        lambda e: bool(e.unresolved),
        lambda e: f"This is predicted from widefield, not from SIM: {e.unresolved}.",
    ),
)

CHANNEL_RULES: tuple[ChannelRule, ...] = (
    ChannelRule(
        "absent",
        DO_NOT_USE,
        lambda e, c: c.absent,
        lambda e, c: (
            f"{c.label} is absent: its channel has no more light than the engine gives it where"
            " there is none of it."
        ),
    ),
    ChannelRule(
        "audit",
        DO_NOT_USE,
        lambda e, c: c.audit_pcc < UNUSABLE_PCC,
        lambda e, c: (
            f"{c.label} was unlike its true channel at the last audit: what is shown of it is not"
            " to be trusted."
        ),
    ),
    ChannelRule(
        "weak",
        CHECK,
        lambda e, c: c.weak and not c.absent,
        lambda e, c: (
            f"{c.label} is too weak beside the other structures: what is shown of it may be theirs."
        ),
    ),
)


def judged(evidence: Evidence) -> Judgement:
    """Return what a frame is worth, from the rules alone.

    A frame is as bad as the worst rule that holds for it; a channel as the frame and its own. A
    frame in which some channel is not good is to be checked, and one in which no channel is to be
    used is not to be used either.
    """
    own = [
        Verdict(rule.word, (rule.sentence(evidence),))
        for rule in FRAME_RULES
        if rule.holds(evidence)
    ]
    own += evidence.said
    whole = _together(own)
    channels = {
        channel.label: _together([*_of_channel(evidence, channel), *own])
        for channel in evidence.channels
    }
    words = [verdict.word for verdict in channels.values()]
    if words and all(word is DO_NOT_USE for word in words):
        word = DO_NOT_USE
    else:
        word = worst([whole.word, *(min(w, CHECK, key=lambda q: q.rank) for w in words)])
    reasons = [*whole.reasons, *(reason for v in channels.values() for reason in v.reasons)]
    return Judgement(word, tuple(dict.fromkeys(reasons)), channels)


def _of_channel(evidence: Evidence, channel: ChannelEvidence) -> list[Verdict]:
    return [
        Verdict(rule.word, (rule.sentence(evidence, channel),))
        for rule in CHANNEL_RULES
        if rule.holds(evidence, channel)
    ]


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst word, and all reasons, those of the worst first."""
    ordered = sorted(verdicts, key=lambda verdict: -verdict.word.rank)
    return Verdict(
        worst(verdict.word for verdict in ordered),
        tuple(reason for verdict in ordered for reason in verdict.reasons),
    )
