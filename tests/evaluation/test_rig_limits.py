"""A rig's own recordings in order become its limits, which later runs are held against."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from livesr import LiveSR, cli
from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError, StoreError
from livesr.base.geometry import Geometry
from livesr.base.quality import Quality
from livesr.base.rig_limits import FILE, RigLimits, load_rig_limits
from livesr.base.taken_with import TakenWith
from livesr.check.rig import check_rig
from livesr.evaluation.rig_limits import Field, fields_of, rig_limits
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import load_engine
from livesr.live.paths import ChannelPath, build_path, build_superposition
from livesr.live.sources.plan import sim_sequence
from livesr.store.process import process
from livesr.store.raw_input import store_input
from recorded_runs import RIGS
from rigs import core_of

IN_ORDER = "microtubules+er+lysosomes"
WITH_MITOCHONDRIA = "mitochondria+er+lysosomes"
SUM = "488+561+640"
LIGHT = "{0.id} {0.version}".format(load_engine("imcsr-mt-er-lyso-light").manifest)
UNKNOWN = "a structure that the engine does not know, more than all but 20 % of fields in order"


def record(folder: Path, seed: int, rig: Path, stained: str = IN_ORDER) -> Path:
    """One cell of the virtual rig, separated live."""
    settings = {"SensorSize": 128, "TimePoints": 3, "Seed": seed, "Dyes": stained}
    with core_of("virtual_sim", exposure_ms=1, **settings) as core:
        plan, store = sim_sequence(3), folder / f"cell{seed}.ome.zarr"
        session = LiveSR(
            core, rig=load_rig(rig), plan=plan, store=store, policy="complete", threads=1
        )
        with session:
            core.mda.run(plan)
    return Path(session.report["store"])


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four cells in order, and one with mitochondria in the place of microtubules."""
    folder = tmp_path_factory.mktemp("cells")
    known = [record(folder, seed, RIGS / "virtual_sim") for seed in range(1000, 1004)]
    return [*known, record(folder, 3001, RIGS / "virtual_sim", WITH_MITOCHONDRIA)]


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    folder = tmp_path / "rig"
    shutil.copytree(RIGS / "virtual_sim", folder)
    return folder


def calibrate(stores: Sequence[Path], rig: Path, *options: str) -> int:
    names = map(str, stores)
    return cli._run(["calibrate-limits", *names, "--rig", str(rig), "--json", *options])


def words(store: Path) -> list[str]:
    return [line["judgement"]["word"] for line in pictures(store)]


def said(store: Path) -> str:
    return " ".join(warning for line in pictures(store) for warning in line.get("warnings", []))


def pictures(store: Path) -> list[Any]:
    return list(RecordedStore(store).pictures("sr").values())


def again(store: Path, rig: Path, folder: Path) -> Path:
    raw = store_input(RecordedStore(store), rig=load_rig(rig))
    return Path(
        process(raw, folder / f"again-{store.name}", compute=ComputeConfig(threads=1))["store"]
    )


def test_mitochondria_are_named_from_the_rigs_own_limit_on(
    cells: list[Path], rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *known, foreign = cells
    assert set(words(foreign)) == {Quality.GOOD}  # by the limit of any rig
    assert calibrate(known, rig, "--false-alarms", "0.2") == 0
    told = json.loads(capsys.readouterr().out)["channels"]["488"]
    assert (told["fields"], told["frames"]) == (4, 12)
    limits = load_rig_limits(rig / FILE).channels["488"]
    assert limits.model_dump(mode="json") == told
    own, others = (
        [line["unknown_light"] for store in stores for line in pictures(store)]
        for stores in (known, [foreign])
    )
    assert np.median(own) < limits.unknown_light < min(others)

    (tmp_path / "runs").mkdir()
    live = record(tmp_path / "runs", 3001, rig, WITH_MITOCHONDRIA)
    assert set(words(live)) == {Quality.CHECK}
    sentence = f"{UNKNOWN} have on this rig (its own recordings: 4 fields, 12 frames, cell1000"
    assert sentence in said(live)
    report = json.loads((live / "livesr" / "report.json").read_text(encoding="utf-8"))
    assert any(sentence in warning for warning in report["warnings"])
    assert set(words(again(foreign, rig, tmp_path))) == {Quality.CHECK}
    # what a store has of its rig is enough to say the same later
    kept = process(store_input(RecordedStore(live)), tmp_path / "kept.ome.zarr")
    assert sentence in said(Path(kept["store"]))

    for store in (record(tmp_path / "runs", 1005, rig), again(known[3], rig, tmp_path)):
        assert set(words(store)) == {Quality.GOOD}
    assert [found.code for found in check_rig(rig / "rig.yaml") if "limits" in found.code] == [
        "limits"
    ]


def test_a_rig_that_changed_is_not_held_against_its_old_limit(
    cells: list[Path], rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *known, foreign = cells
    assert calibrate(known, rig, "--false-alarms", "0.2") == 0
    change(rig, "emission_nm: 525", "emission_nm: 540")
    assert calibrate(known, rig, "--false-alarms", "0.2") == 2
    assert (
        "optics that resolve 176.2 nm (wavelength / 2 NA), not 181.2 nm" in capsys.readouterr().out
    )
    store = again(foreign, rig, tmp_path)
    assert UNKNOWN not in said(store)
    report = (store / "livesr" / "report.json").read_text(encoding="utf-8")
    assert "limits.yaml was measured with optics that resolve 176.2 nm" in report
    (finding,) = [found for found in check_rig(rig / "rig.yaml") if found.code == "limits"]
    assert finding.level == "warning"
    assert "not 181.2 nm" in finding.says


def test_recordings_of_another_reconstruction_are_refused(
    cells: list[Path], rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the rig as it is now, and of each other; made again with it they serve."""
    change(rig, "wiener: 0.1", "wiener: 0.3")
    assert calibrate(cells[:1], rig, "--false-alarms", "0.5") == 2
    refused = " ".join(capsys.readouterr().out.split())
    assert "was taken with sim.wiener 0.1, not 0.3 as rig 'virtual SIM'" in refused
    smooth = again(cells[0], rig, tmp_path)
    assert calibrate([smooth, cells[1]], rig, "--false-alarms", "0.5") == 2
    assert calibrate([smooth], rig, "--false-alarms", "0.5") == 0
    found = load_rig_limits(rig / FILE).channels["488"].taken_with.settings
    assert found
    assert (found["sim.wiener"], found["resample"]) == ("0.3", "off")


def test_a_limit_of_another_engine_is_not_used(rig: Path) -> None:
    file = rig / FILE
    of(TAKEN).save(file)
    (finding,) = [found for found in check_rig(rig / "rig.yaml") if found.code == "limits"]
    assert f"measured with other 1 (0123456789ab), not {LIGHT}" in finding.says
    RigLimits(channels={"561": of(TAKEN).channels["488"]}).save(file)
    (finding,) = [found for found in check_rig(rig / "rig.yaml") if found.code == "limits"]
    assert (finding.level, "'561'" in finding.says) == ("warning", True)
    file.write_text("channels: {'488': {unknown_light: -1}}", encoding="utf-8")
    (finding,) = [found for found in check_rig(rig / "rig.yaml") if found.code == "limits"]
    assert (finding.level, "limits.yaml" in finding.says) == ("error", True)


def test_a_file_cut_anywhere_is_refused_and_never_gives_another_limit(tmp_path: Path) -> None:
    file = tmp_path / FILE
    of(TAKEN).save(file)
    whole = file.read_bytes()
    assert load_rig_limits(file) == of(TAKEN)
    for n in range(len(whole) - 1):  # the last newline says nothing
        file.write_bytes(whole[:n])
        with pytest.raises(ConfigError, match=r"limits\.yaml"):
            load_rig_limits(file)


@pytest.mark.parametrize(
    ("engine", "noted"), [("identity", False), ("imcsr-mt-er-lyso-light", True)]
)
def test_an_engine_that_tells_no_unknown_light_is_told_of_no_limit(
    rig: Path, engine: str, noted: bool
) -> None:
    of(TAKEN).save(rig / FILE)
    camera = Geometry((32, 32), "uint16", 0.065)
    path = build_path(load_rig(rig).with_engine(engine), "488", camera, ComputeConfig(threads=1))
    path.close()
    assert any(FILE in note for note in path.notes) is noted


def test_a_limit_that_cannot_be_read_or_written_is_said(
    cells: list[Path], rig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is damaged may hold limits of other channels: it is not written over."""
    (rig / FILE).write_text("channels: {'488':", encoding="utf-8")
    assert calibrate(cells[:4], rig, "--false-alarms", "0.2") == 2
    assert "remove it and run 'livesr calibrate-limits' again" in capsys.readouterr().out
    assert (rig / FILE).read_text(encoding="utf-8") == "channels: {'488':"
    (rig / FILE).unlink()
    (rig / f".{FILE}.new").mkdir()  # a folder that takes no file of this name
    assert calibrate(cells[:4], rig, "--false-alarms", "0.2") == 2
    assert "Make its folder writable" in json.loads(capsys.readouterr().out)["error"]
    assert not (rig / FILE).exists()


def test_a_limit_of_a_sum_is_of_its_engine_and_of_how_it_is_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """True channels, superposed: what is usual in an equal sum is not in one with less ER."""
    rig = tmp_path / "dyes"
    shutil.copytree(RIGS / "virtual_dyes", rig)
    plan, store = sim_sequence(2, ("488", "561", "640")), tmp_path / "sum.ome.zarr"
    with core_of("virtual_dyes", exposure_ms=1, SensorSize=96, TimePoints=2) as core:
        asked = {"plan": plan, "store": store, "policy": "complete", "threads": 1}
        with LiveSR(core, rig=load_rig(rig), **asked):
            core.mda.run(plan)
    # on any rig whose sum goes together alike, however it is written
    change(rig, "weights: [1.0, 1.0, 1.0]", "weights: [2, 2, 2]")
    assert calibrate([store], rig, "--false-alarms", "0.5") == 0
    found = json.loads(capsys.readouterr().out)["channels"][SUM]["taken_with"]
    assert found["engines"] == [str(load_engine("imcsr-mt-er-lyso-light"))]
    assert found["mixed"] == pytest.approx([1 / 3] * 3, rel=1e-5)
    assert path_of_sum(rig).own.limits == load_rig_limits(rig / FILE).channels[SUM]
    assert level_of_limits(rig) == "note"

    text = (rig / FILE).read_text(encoding="utf-8")
    change(rig, "weights: [2, 2, 2]", "weights: [2, 1, 2]")
    assert_not_used(rig, "a sum of 0.333 + 0.333 + 0.333, not a sum of 0.4 + 0.2 + 0.4")
    assert calibrate([store], rig, "--false-alarms", "0.5") == 2
    assert "not a sum of 0.4 + 0.2 + 0.4 as rig" in capsys.readouterr().out
    change(rig, "weights: [2, 1, 2]", "weights: [1, 1, 1]")
    (sha256,) = re.findall(r"\(([0-9a-f]{12})\)", text)
    for other in (
        text.replace(sha256, "0" * 12),
        text.replace(f"{LIGHT} ", f"{LIGHT}9 "),
    ):
        (rig / FILE).write_text(other, encoding="utf-8")
        assert_not_used(rig, f"not {LIGHT} ({sha256})")


def assert_not_used(rig: Path, why: str) -> None:
    path = path_of_sum(rig)
    assert path.own.limits is None
    (note,) = [note for note in path.notes if FILE in note]
    assert why in note
    assert level_of_limits(rig) == "warning"


def level_of_limits(rig: Path) -> str:
    (finding,) = [found for found in check_rig(rig / "rig.yaml") if found.code == "limits"]
    return finding.level


def path_of_sum(rig: Path) -> ChannelPath:
    """What a run of a rig does with the sum of its channels."""
    config, compute = load_rig(rig), ComputeConfig(threads=1)
    camera = Geometry((96, 96), "uint16", 0.065)
    assert config.superpose
    paths = {name: build_path(config, name, camera, compute) for name in config.superpose.channels}
    found = build_superposition(config, paths, compute)
    for path in (found, *paths.values()):
        path.close()
    return found


def test_few_fields_are_refused_with_how_many_it_takes(
    cells: list[Path], rig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(cells[:4], rig) == 2
    refused = " ".join(capsys.readouterr().out.split())
    assert "4 of 19 fields came of channel '488', with 12 frames in all" in refused
    assert "takes 19" in refused
    assert "--false-alarms 0.20" in refused
    assert not (rig / FILE).exists()


def test_a_run_counts_once(cells: list[Path], rig: Path, tmp_path: Path) -> None:
    copy = again(cells[0], rig, tmp_path)
    fields = [field for store in (*cells[:4], copy) for field in fields_of(RecordedStore(store))]
    with pytest.raises(ConfigError, match="are of one run"):
        rig_limits(fields, load_rig(rig), 0.2)


def test_a_store_without_predictions_is_refused(
    cells: list[Path], rig: Path, tmp_path: Path
) -> None:
    raw = store_input(RecordedStore(cells[0]), rig=load_rig(rig).with_engine(None))
    store = Path(process(raw, tmp_path / "plain.ome.zarr")["store"])
    with pytest.raises(StoreError, match="imcsr-mt-er-lyso-light"):
        fields_of(RecordedStore(store))


def test_a_store_of_a_former_engine_is_of_use_once_it_is_predicted_anew(
    cells: list[Path], rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = tmp_path / "former.ome.zarr"
    shutil.copytree(cells[0], former)
    sha256 = load_engine("imcsr-mt-er-lyso-light").manifest.sha256
    about = former / "sr" / "zarr.json"
    about.write_text(about.read_text().replace(sha256, "0" * 64))
    assert calibrate([former], rig, "--false-alarms", "0.5") == 2
    refused = " ".join(capsys.readouterr().out.split())
    assert "weights 000000000000..., which is not among the engines here" in refused
    assert "'livesr process STORE --rig RIG'" in refused
    assert cli._run(["process", str(former), "--rig", str(rig)]) == 0
    anew = tmp_path / "former_processed.ome.zarr"
    assert calibrate([anew], rig, "--false-alarms", "0.5") == 0


TAKEN = TakenWith(
    engines=["other 1 (0123456789ab)"], pixel_size_nm=32.5, resolution_nm=525 / (2 * 1.49)
)


def of(taken_with: TakenWith) -> RigLimits:
    return RigLimits.model_validate(
        {
            "channels": {
                "488": {
                    "unknown_light": 0.03,
                    "false_alarms": 0.05,
                    "fields": 19,
                    "frames": 19,
                    "stores": ["a"],
                    "taken_with": taken_with,
                }
            }
        }
    )


@pytest.mark.parametrize(("n", "share"), [(4, 0.2), (19, 0.05), (99, 0.05), (40, 0.1)])
def test_of_exchangeable_fields_each_is_above_as_seldom_as_was_asked(n: int, share: float) -> None:
    """Leaving out each of n + 1 in turn, exactly: no draw, no tolerance."""
    rig = load_rig(RIGS / "virtual_sim")
    engine = str(load_engine("imcsr-mt-er-lyso-light"))
    taken = TAKEN.model_copy(update={"engines": [engine]})
    values = [0.02 + 0.001 * i for i in range(n + 1)]
    fields = [Field(f"{i}", f"{i}", 0, "488", taken, 3, v) for i, v in enumerate(values)]
    above = [
        left_out.unknown_light
        > rig_limits([f for f in fields if f is not left_out], rig, share)["488"].unknown_light
        for left_out in fields
    ]
    assert 0 < sum(above) <= share * (n + 1) + 1e-9


def test_limits_of_another_channel_stay(cells: list[Path], rig: Path) -> None:
    other = of(TAKEN).channels["488"]
    RigLimits(channels={"561": other}).save(rig / FILE)
    assert calibrate(cells[:4], rig, "--false-alarms", "0.2") == 0
    found = load_rig_limits(rig / FILE).channels
    assert (set(found), found["561"]) == ({"488", "561"}, other)
    assert "561" in yaml.safe_load((rig / FILE).read_text(encoding="utf-8"))["channels"]


def change(rig: Path, old: str, new: str) -> None:
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    assert old in text
    (rig / "rig.yaml").write_text(text.replace(old, new), encoding="utf-8")
