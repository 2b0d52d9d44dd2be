"""A modality of another package, with a section of its own, from rig.yaml to the store and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import yaml
from pydantic import Field

from livesr import LiveSR
from livesr.base.config import RigConfig, Section, load_rig, load_yaml
from livesr.base.errors import ConfigError
from livesr.base.frames import FrameQuality, RawStack
from livesr.base.geometry import Geometry
from livesr.formats.store import RecordedStore
from livesr.live.reconstruct.monitor import Monitor, Observation
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.modality import Modality
from livesr.modalities.registry import MODALITIES, modality
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.store.replay import Replay
from recorded_runs import array
from rigs import core_of

FRAMES, GROUPS, OFFSET_ADU = 4, 3, 100
RUNTIME = {"record_raw": True, "policy": "complete"}


class MineConfig(Section):
    """How many exposures are averaged."""

    modality: Literal["mine"] = "mine"
    frames: Annotated[int, Field(ge=1, le=100)] = 2


class Mean:
    """The mean of the raw frames, corrected by the corrections alone."""

    scale = 1.0
    memory_bytes = 0

    def __init__(self, shape: tuple[int, int], offset_adu: float) -> None:
        self.shape, self._offset_adu = shape, np.float32(offset_adu)

    def reconstruct(self, frames: Any) -> Any:
        return np.mean(np.stack(list(frames)), axis=0, dtype=np.float32) - self._offset_adu


class Watch(Monitor):
    """Counts groups, and says once that it saw some."""

    def __init__(self, seen: list[str]) -> None:
        self._seen, self._groups = seen, 0

    def before(self, stack: RawStack) -> None:
        self._seen.append("before")

    def after(self, stack: RawStack, quality: FrameQuality) -> None:
        self._seen.append("after")

    def look(self) -> Observation:
        return Observation(("Mine was watched.",) if self._seen else ())


class Mine(Modality[MineConfig]):
    """What a package of somebody else brings."""

    name = "mine"
    Section: ClassVar[type[MineConfig]] = MineConfig
    unit = "photon"
    prepared: ClassVar[list[int]] = []
    watched: ClassVar[list[bool]] = []
    seen: ClassVar[list[str]] = []

    def raw_frames(self, section: MineConfig) -> int:
        return section.frames

    def raw_labels(self, section: MineConfig) -> tuple[str, ...]:
        return tuple(f"exposure {i}" for i in range(section.frames))

    def prepare_run(self, core: Any, section: MineConfig) -> None:
        self.prepared.append(section.frames)

    def build(
        self, rig: RigConfig, channel: str, camera: Geometry, arrays: Any = None, like: Any = None
    ) -> Any:
        assert isinstance(rig.section(channel), MineConfig)
        return Mean(camera.shape, rig.camera.offset_adu)

    def monitors(
        self, rig: RigConfig, channel: str, camera: Geometry, reconstructor: Any, recorded: bool
    ) -> list[Monitor]:
        self.watched.append(recorded)
        return [Watch(self.seen)]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The metadata that a package manager would have written."""
    site = tmp_path / "site"
    info = site / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[livesr.modalities]\nmine = {__name__}:Mine\n")
    monkeypatch.syspath_prepend(site)
    vars(MODALITIES).pop("_announced", None)  # what was found without it
    for kept in (Mine.prepared, Mine.watched, Mine.seen):
        kept.clear()
    yield
    vars(MODALITIES).pop("_announced", None)


@pytest.fixture
def rig(tmp_path: Path) -> RigConfig:
    """The demo rig, reconstructed by a modality that livesr does not know."""
    there = load_rig("demo")
    about = load_yaml(there.folder / "rig.yaml") | {
        "modality": "mine",
        "mine": {"frames": FRAMES},
        "channels": {"488": {"reconstruct": "mine"}},
        "camera": {"offset_adu": OFFSET_ADU},
    }
    folder = tmp_path / "rig"
    folder.mkdir()
    (folder / "rig.yaml").write_text(yaml.safe_dump(about))
    (folder / "rig.cfg").write_bytes(there.cfg_path.read_bytes())
    return load_rig(folder)


def test_its_section_is_one_of_rig_yaml(rig: RigConfig) -> None:
    assert rig.section("488") == MineConfig(frames=FRAMES)
    assert rig.raw_frames("488") == rig.max_raw_frames == FRAMES
    assert MODALITIES.package("mine") == "mine 1.0"
    fewer = rig.with_section(MineConfig(frames=2))
    assert (fewer.raw_frames("488"), rig.raw_frames("488")) == (2, FRAMES)
    assert rig.model_copy(update={"sections": {}}).section("488") == MineConfig()
    path = rig.folder / "rig.yaml"
    path.write_text(path.read_text().replace("frames: 4", "frmes: 4"))
    with pytest.raises(ConfigError, match=r"unknown key 'mine\.frmes'\. Did you mean 'frames'"):
        load_rig(rig.folder)


def test_a_run_stores_what_it_makes_and_offline_runs_repeat_it(
    rig: RigConfig, tmp_path: Path
) -> None:
    plan = sim_sequence(GROUPS, ["488"], raw=FRAMES)
    with core_of(rig.folder) as core:
        core.setROI(0, 0, 48, 32)
        with LiveSR(core, rig=rig, plan=plan, store=tmp_path / "live", **RUNTIME) as session:
            core.mda.run(plan)
        report = session.report
    store = Path(report["store"])
    assert (report["groups"], report["recon_frames"]) == (GROUPS, GROUPS)
    assert (Mine.prepared, Mine.watched) == ([FRAMES], [False])
    assert Mine.seen.count("before") == GROUPS
    assert "Mine was watched." in report["warnings"]
    check_the_store(store)
    Mine.watched.clear()
    with closing(store_input(RecordedStore(store))) as raw:
        again = Path(process(raw, tmp_path / "processed")["store"])
    check_the_store(again)
    with Replay(store, rate="max", store=tmp_path / "replayed", **RUNTIME) as replay:
        replay.run()
    check_the_store(Path(replay.report["store"]))
    assert Mine.watched[0] is True
    for other in (again, Path(replay.report["store"])):
        np.testing.assert_array_equal(array(store, "recon"), array(other, "recon"))


def check_the_store(store: Path) -> None:
    images = {image.kind: image for image in RecordedStore(store).images.values()}
    raw, recon = array(store, "raw").astype(np.float64), array(store, "recon")
    assert raw.shape == (GROUPS, FRAMES, 32, 48)
    assert images["recon"].attributes["livesr"]["method"] == "mine"
    offset = recon.reshape(GROUPS, 32, 48) - np.rint(raw.mean(axis=1) - OFFSET_ADU)
    assert (
        np.ptp(offset) <= 1
    )  # the store's offset for negative values, and halves that are rounded


def test_a_modality_that_is_not_installed_is_a_sentence(rig: RigConfig) -> None:
    path = rig.folder / "rig.yaml"
    text = path.read_text()
    path.write_text(text.replace("modality: mine", "modality: mien"))
    with pytest.raises(ConfigError, match=r"modality: there is no such modality.*'mine'"):
        load_rig(rig.folder)
    path.write_text(text.replace("mine:", "mien:"))
    with pytest.raises(ConfigError, match=r"unknown key 'mien'\. Did you mean 'mine'"):
        load_rig(rig.folder)
    with pytest.raises(ConfigError, match="Unknown modality 'mien'"):
        modality("mien")


def test_a_modality_without_a_section_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Mine):
        name = "plain"
        Section = Section

        def raw_frames(self, section: Any) -> int:
            assert section.modality == "plain"
            return 5

    monkeypatch.setattr(MODALITIES, "load", lambda name: Plain)
    monkeypatch.setattr(type(MODALITIES), "__contains__", lambda self, name: name == "plain")
    about: dict[str, Any] = {"name": "a", "modality": "plain", "optics": {"na": 1.4}}
    rig = RigConfig.model_validate(about)
    assert (rig.raw_frames(""), rig.sections) == (5, {})
    assert (Plain.title, Plain.method, Mine.title) == ("PLAIN", "plain", "MINE")


def test_the_old_name_of_widefield(caplog: pytest.LogCaptureFixture) -> None:
    about: dict[str, Any] = {"name": "a", "modality": "passthrough", "optics": {"na": 1.4}}
    rig = RigConfig.model_validate(about)
    assert (rig.modality, rig.raw_frames("")) == ("widefield", 1)
    assert "now called 'widefield'" in caplog.text
    assert modality("passthrough").method == "passthrough"  # in stores, as ever
