"""The table that says what a prediction is worth, and how the words travel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream
from livesr.base.quality import Judgement, Quality, Verdict, worst
from livesr.live.inference.engine import ChannelMixing
from livesr.live.mixing import Mixing, brightness, mixings, ratios
from livesr.live.quality import CHANNEL_RULES, FRAME_RULES, ChannelEvidence, Evidence, judged

GOOD, CHECK, DO_NOT_USE = Quality


def channels(**of_er: bool) -> list[ChannelEvidence]:
    return [ChannelEvidence("MT"), ChannelEvidence("ER", **of_er)]


def test_nothing_speaks_against_a_good_frame() -> None:
    found = judged(Evidence(channels()))
    assert found.word is GOOD
    assert found.reasons == ()
    assert found.channels == {"MT": Verdict(), "ER": Verdict()}


def test_a_channel_has_its_own_word_and_the_frame_is_to_be_checked() -> None:
    found = judged(Evidence(channels(absent=True)))
    assert found.channels["MT"].word is GOOD
    assert found.channels["ER"].word is DO_NOT_USE
    assert "absent" in found.channels["ER"].reasons[0]
    assert found.word is CHECK
    assert found.reasons == found.channels["ER"].reasons


def test_a_channel_that_is_absent_is_not_called_weak_as_well() -> None:
    found = judged(Evidence(channels(absent=True, weak=True)))
    assert len(found.channels["ER"].reasons) == 1
    assert judged(Evidence(channels(weak=True))).channels["ER"].word is CHECK


def test_a_channel_is_never_better_than_its_frame() -> None:
    found = judged(Evidence(channels(weak=True), residual=0.9, residual_limit=0.5))
    assert found.word is DO_NOT_USE
    assert {verdict.word for verdict in found.channels.values()} == {DO_NOT_USE}
    assert "residual" in found.reasons[0]  # the worst comes first
    assert len(found.channels["ER"].reasons) == 2


def test_a_frame_without_a_channel_of_use_is_of_no_use() -> None:
    every = [ChannelEvidence(name, absent=True) for name in ("MT", "ER")]
    assert judged(Evidence(every)).word is DO_NOT_USE


def test_what_is_said_with_every_frame_counts_as_it_was_said() -> None:
    said = (Verdict(CHECK, ("Pixels of 40 nm.",)), Verdict(GOOD, ("Runs elsewhere.",)))
    found = judged(Evidence(channels(), said=said))
    assert found.word is CHECK
    assert set(found.reasons) == {"Pixels of 40 nm.", "Runs elsewhere."}
    assert judged(Evidence(channels(), said=said[1:])).word is GOOD


def test_every_rule_has_a_name_of_its_own_and_speaks_against_a_frame() -> None:
    rules = [*FRAME_RULES, *CHANNEL_RULES]
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.word is not GOOD for rule in rules)


def test_a_judgement_is_read_as_it_was_written() -> None:
    found = judged(Evidence(channels(weak=True), unlike=True))
    assert Judgement.read(found.written()) == found
    assert Judgement.read({"word": "splendid"}).word is CHECK  # of a later version
    assert worst([]) is GOOD


def test_a_script_asks_a_channel_what_it_is_worth() -> None:
    frame = MulticolorFrame(
        np.ones((2, 4, 4), np.uint16),
        SRFrame(np.ones((4, 4), np.float32), Stream(), 0, 0, 0, Normalisation(0, 1)),
        0.1,
        ((0, 1), (0, 1)),
        0.0,
        labels=("MT", "ER"),
        judgement=judged(Evidence(channels(weak=True))),
    )
    assert frame.quality is CHECK
    assert frame["ER"].quality is CHECK
    assert frame["MT"].quality is GOOD
    assert "weak" in frame["ER"].reasons[0]
    assert (frame["ER"] + 1).quality is None  # something else by now
    assert frame["ER"].dtype == np.uint16
    assert np.shares_memory(frame["ER"], frame.channels)


class TestMixing:
    KNOWN = ChannelMixing(slope=1.0, offset=0.0, sd=0.3, weak=0.5, absent=0.1)

    def test_brightness_does_not_depend_on_how_much_is_covered(self) -> None:
        few, many = np.zeros((1, 200, 200)), np.zeros((1, 200, 200))
        few[0, :20], many[0, :120] = 7, 7
        assert brightness(few) == brightness(many) == [7]

    def test_a_ratio_is_to_the_brightest_other_structure(self) -> None:
        assert ratios([4, 2, 1]) == pytest.approx([2, 0.5, 0.25])
        assert ratios([4, 0])[1] == 0.001  # of nothing there is a logarithm as well
        assert np.isnan(ratios([4])).all()

    def test_a_stream_narrows_what_frames_differ_by_and_no_more(self) -> None:
        rng, mixing = np.random.default_rng(0), Mixing("ER", self.KNOWN)
        assert not mixing.known
        widths = []
        for _ in range(60):
            mixing.update(0.4 * math.exp(rng.normal(0, 0.5)))
            widths.append(math.log(mixing.ratio().high / mixing.ratio().low))
        last = mixing.ratio()
        assert last.low < 0.4 < last.high
        assert last.ratio == pytest.approx(0.4, rel=0.4)
        assert widths[-1] >= 2 * 1.645 * self.KNOWN.sd
        assert widths[-1] < 2 * 1.645 * math.hypot(self.KNOWN.sd, 0.25)

    def test_no_engine_is_followed_by_halves(self) -> None:
        assert mixings({"ER": self.KNOWN}, ["MT", "ER"]) == []
        assert len(mixings({"ER": self.KNOWN}, ["ER"])) == 1
