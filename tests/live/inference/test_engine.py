import os
import shutil
from pathlib import Path

import pytest
import yaml

from backend_contract import make_engine
from livesr.base.errors import EngineError
from livesr.base.registry import announced_folders
from livesr.evaluation.limits import write_limits
from livesr.live.inference.engine import (
    Engine,
    Limits,
    Manifest,
    Metrics,
    Range,
    engine_folders,
    load_engine,
    write_manifest,
)
from livesr.live.inference.identity import identity_engine

SHIPPED = Path(__file__).parents[3] / "engines"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine called "mt-er" that is found by name.

    Its weights are any bytes, for nothing here runs it.
    """
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    return make_engine(
        tmp_path / "engines" / "mt-er",
        b"\x12\x07weights",
        id="mt-er",
        pixel_size_nm={"min": 30.0, "max": 35.0},
        modality=["sim"],
        trained=True,
    )


def edit(engine: Engine, **fields: object) -> None:
    path = engine.folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))


class TestLoading:
    def test_by_name_folder_and_manifest(self, engine: Engine) -> None:
        for way in ("mt-er", engine.folder, str(engine.folder), engine.folder / "manifest.yaml"):
            assert load_engine(way) == engine

    def test_a_typo_gets_a_suggestion(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match="Did you mean 'mt-er'"):
            load_engine("mt-err")

    def test_an_unknown_name_gets_the_list(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"Known: .*mt-er"):
            load_engine("nowhere")

    def test_a_folder_without_a_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"holds no manifest\.yaml"):
            load_engine(tmp_path)

    def test_a_damaged_one_is_named_but_not_loaded(self, engine: Engine) -> None:
        assert load_engine("mt-er") == engine
        engine.onnx_path.write_bytes(b"damaged")
        with pytest.raises(EngineError, match="SHA-256"):
            load_engine("mt-er")
        assert engine_folders()["mt-er"] == engine.folder

    def test_one_of_another_package_is_found_behind_the_own(
        self,
        engine: Engine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        engines = tmp_path / "site" / "nets" / "engines"
        for name in ("mt-er", "mt-er-dense"):
            shutil.copytree(engine.folder, engines / name)
        info = tmp_path / "site" / "nets-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nets\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text("[livesr.engines]\nall = nets.engines\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        announced_folders.cache_clear()
        try:
            assert load_engine("mt-er-dense").folder == (engines / "mt-er-dense").resolve()
            assert load_engine("mt-er").folder == engine.folder.resolve()
        finally:
            announced_folders.cache_clear()
        assert "nets 2.0 has an engine 'mt-er'" in caplog.text

    def test_what_is_written_is_read_back(self, engine: Engine) -> None:
        write_manifest(engine.folder, engine.manifest)
        assert load_engine(engine.folder).manifest == engine.manifest


class TestWeights:
    def test_another_hash_is_refused_with_both(self, engine: Engine) -> None:
        engine.onnx_path.write_bytes(b"other weights")
        with pytest.raises(
            EngineError, match=f"names {engine.manifest.sha256[:12]}.*export it anew"
        ):
            load_engine("mt-er")

    def test_what_is_read_is_what_was_verified(self, engine: Engine) -> None:
        assert engine.read() == b"\x12\x07weights"
        engine.onnx_path.write_bytes(b"swapped")
        with pytest.raises(EngineError, match="SHA-256"):
            engine.read()

    def test_missing_weights(self, engine: Engine) -> None:
        engine.onnx_path.unlink()
        with pytest.raises(EngineError, match="not beside it"):
            load_engine("mt-er")

    @pytest.mark.parametrize(
        "source", ["../model.onnx", "/etc/passwd", "C:model.onnx", "..", "", "a\\b.onnx"]
    )
    def test_weights_elsewhere_are_refused(self, engine: Engine, source: str) -> None:
        edit(engine, weights={"onnx": {"source": source, "sha256": engine.manifest.sha256}})
        with pytest.raises(EngineError, match=r"weights\.onnx\.source"):
            load_engine("mt-er")

    @pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
    def test_a_link_to_elsewhere_is_refused(self, engine: Engine, tmp_path: Path) -> None:
        outside = tmp_path / "outside.onnx"
        shutil.move(engine.onnx_path, outside)
        engine.onnx_path.symlink_to(outside)
        with pytest.raises(EngineError, match="leads out of"):
            load_engine("mt-er")

    def test_what_is_of_another_network_is_left_out_and_told(self, engine: Engine) -> None:
        weights, other = engine.manifest.weights.model_dump(), "0" * 64
        made = {
            **weights["onnx"],
            "source": "model-int8.onnx",
            "made_of": other,
            "calibration": "",
            "pcc_loss": 0.0,
        }
        edit(
            engine,
            weights=weights | {"int8": made},
            limits={"measured_with": other, "weak": {"MT": 0.1}},
            metrics={"measured_with": other, "residual": {"min": 0.1, "max": 0.2}},
        )
        loaded = load_engine(engine.folder)
        manifest = loaded.manifest
        assert (manifest.limits, manifest.metrics) == (Limits(), Metrics())
        assert (manifest.weights.int8, loaded.int8_path) == (None, None)
        for note, command in zip(
            loaded.notes,
            ("livesr limits", "livesr limits", "livesr quantise"),
            strict=True,
        ):
            assert "another network (000000000000..., not" in note
            assert f"'{command} {engine.folder}" in note
        told = loaded.check_fits(manifest.task, shape=(64, 64))
        assert set(loaded.notes) <= set(told)

    @pytest.mark.parametrize("measured_with", [None, "its own"])
    def test_what_is_its_own_or_of_before_is_taken(
        self, engine: Engine, measured_with: str | None
    ) -> None:
        own = measured_with and engine.manifest.sha256
        limits = {"measured_with": own, "weak": {"MT": 0.1}}
        edit(engine, limits=limits, metrics={"measured_with": own, "data": "some"})
        loaded = load_engine(engine.folder)
        assert loaded.manifest.limits.weak == {"MT": 0.1}
        assert loaded.manifest.metrics.data == "some"
        assert loaded.notes == ()

    def test_what_is_measured_says_with_which_network(self, engine: Engine) -> None:
        measured = Limits(weak={"MT": 0.2})
        manifest = write_limits(engine.folder, {"limits": measured})
        assert manifest.limits.measured_with == engine.manifest.sha256
        assert load_engine(engine.folder).manifest == manifest

    @pytest.mark.parametrize(
        "folder", sorted(SHIPPED.glob("*/manifest.yaml")), ids=lambda p: p.parent.name
    )
    def test_shipped_engines_are_measured_with_their_own_weights(self, folder: Path) -> None:
        loaded = load_engine(folder.parent)
        manifest = loaded.manifest
        assert loaded.notes == ()
        if manifest.limits.data:
            assert manifest.limits.measured_with == manifest.sha256
        if manifest.metrics.channels:
            assert manifest.metrics.measured_with == manifest.sha256

    def test_int8_is_verified_like_the_network(self, engine: Engine) -> None:
        weights, path = engine.manifest.weights.model_dump(), engine.folder / "model-int8.onnx"
        path.write_bytes(engine.onnx_path.read_bytes())
        made = {**weights["onnx"], "source": path.name, "made_of": engine.manifest.sha256}
        edit(engine, weights=weights | {"int8": {**made, "calibration": "", "pcc_loss": 0.0}})
        loaded = load_engine(engine.folder)
        assert loaded.read_int8() == path.read_bytes()
        path.write_bytes(b"\x12\x05other")
        with pytest.raises(EngineError, match="SHA-256"):
            loaded.read_int8()
        with pytest.raises(EngineError, match="SHA-256"):
            load_engine(engine.folder)


class TestManifest:
    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"windw": 3}, "Did you mean 'window'"),
            ({"window": 2}, "window"),
            ({"id": "../x"}, "id"),
            ({"channels": []}, "channels"),
            ({"channels": [{"name": "MT", "color": "green"}]}, r"channels\.0\.color"),
            ({"channels": [{"name": "MT", "color": "00FF00"}] * 2}, "must differ"),
            ({"task": "restore"}, "one output channel"),
            ({"pixel_size_nm": {"min": 40, "max": 30}}, "above max"),
            ({"weights": {"onnx": {"sha256": "abc"}}}, "sha256"),
            (
                {
                    "limits": {
                        "usual_unknown_light": {
                            "offset": 0,
                            "slopes": {"nois": 1},
                            "least": 0.1,
                            "most": 1,
                        }
                    }
                },
                "one of detail 1",
            ),
        ],
    )
    def test_mistakes_are_sentences(
        self, engine: Engine, fields: dict[str, object], sentence: str
    ) -> None:
        edit(engine, **fields)
        with pytest.raises(EngineError, match=sentence):
            load_engine("mt-er")

    def test_no_yaml(self, engine: Engine) -> None:
        (engine.folder / "manifest.yaml").write_text("channels: [")
        with pytest.raises(EngineError, match="line 1 is not valid YAML"):
            load_engine("mt-er")

    def test_python_objects_in_yaml_are_refused(self, engine: Engine) -> None:
        (engine.folder / "manifest.yaml").write_text("id: !!python/object/apply:os.getcwd []")
        with pytest.raises(EngineError, match="not valid YAML"):
            load_engine("mt-er")

    def test_colours_may_have_their_hash(self, engine: Engine) -> None:
        edit(engine, channels=[{"name": "MT", "color": "#00ff00"}])
        assert load_engine("mt-er").manifest.channels[0].color == "00FF00"


class TestFit:
    def test_nothing_to_say(self, engine: Engine) -> None:
        assert (
            engine.check_fits("separate", shape=(512, 512), pixel_size_nm=32.5, modality="sim")
            == []
        )
        assert engine.check_fits("separate", pixel_size_nm=35.0) == []

    def test_another_task_is_refused(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"'separate'.*needs one that does 'upscale'"):
            engine.check_fits("upscale")

    def test_a_frame_too_small_is_refused(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match="too small"):
            engine.check_fits("separate", shape=(512, 3))

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"pixel_size_nm": 65.0}, "65 nm are outside the 30-35 nm"),
            ({"modality": "passthrough"}, "trained on sim frames; these are passthrough"),
            ({"shape": (16, 512)}, "edge effects"),
        ],
    )
    def test_what_it_was_not_trained_for_is_a_warning(
        self, engine: Engine, given: dict[str, object], sentence: str
    ) -> None:
        (warning,) = engine.check_fits("separate", **given)  # type: ignore[arg-type]
        assert sentence in warning

    def test_untrained_is_always_said(self) -> None:
        assert "untrained" in load_engine(SHIPPED / "identity").check_fits("separate")[0]

    def test_output_shape(self, engine: Engine) -> None:
        manifest = engine.manifest.model_copy(update={"scale": 2})
        assert Engine(engine.folder, manifest, engine.onnx_path).output_shape((10, 12)) == (
            3,
            20,
            24,
        )


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in SHIPPED.glob("*/manifest.yaml")), ids=lambda p: p.name
)
def test_every_shipped_engine_is_whole(folder: Path) -> None:
    engine = load_engine(folder)
    assert engine.manifest.id == folder.name
    card = (folder / engine.manifest.documentation).read_text(encoding="utf-8")
    assert card.startswith(f"# {folder.name}")
    if not engine.manifest.trained:
        assert "Untrained" in card


def test_the_shipped_identity_engine_is_what_its_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    made, shipped = identity_engine(tmp_path / "identity"), load_engine(SHIPPED / "identity")
    assert made.manifest.model_copy(update={"weights": None}) == shipped.manifest.model_copy(
        update={"weights": None}
    )
    assert (made.folder / "README.md").read_text() == (shipped.folder / "README.md").read_text()


def test_range() -> None:
    assert 2.0 in Range(min=1, max=2)
    assert 2.1 not in Range(min=1, max=2)


def test_manifest_is_frozen(engine: Engine) -> None:
    with pytest.raises(ValueError, match="frozen"):
        engine.manifest.scale = 2  # type: ignore[misc]
    assert isinstance(engine.manifest, Manifest)
