"""Packages of bioimage.io that a stranger made.

An import writes into its own folder alone and reads only the package.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from livesr.base.errors import EngineError
from livesr.export.imported import import_model
from livesr.export.rdf import RDF_NAME, export_rdf
from livesr.live.inference.engine import MANIFEST_NAME, load_engine

pytest.importorskip("onnx")
from export.test_bioimageio import package as foreign_package

SECRET = "what is not its own"
needs_links = pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_rdf(
        load_engine("identity"), tmp_path_factory.mktemp("exported") / "identity"
    ).parent


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "package"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return file


def changed(package: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    rdf = yaml.safe_load((package / RDF_NAME).read_text())
    change(rdf)
    (package / RDF_NAME).write_text(yaml.safe_dump(rdf))
    return package


ELSEWHERE = ["{secret}", "../secret", "..\\secret", "C:\\secret", "sub/../../secret", "..", ""]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_card_of_an_own_engine_is_written_into_its_folder(
    name: str, package: Path, secret: Path
) -> None:
    (package / "README.md").write_text("overwritten")
    changed(
        package,
        lambda rdf: rdf["config"]["livesr"].update(documentation=name.format(secret=secret)),
    )
    with pytest.raises(EngineError, match="documentation"):
        import_model(package, package.parent / "out")
    assert secret.read_text() == SECRET
    assert not (package.parent / "out").exists()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_network_is_written_into_its_folder(name: str, package: Path, secret: Path) -> None:
    changed(
        package,
        lambda rdf: rdf["config"]["livesr"]["weights"]["onnx"].update(
            source=name.format(secret=secret)
        ),
    )
    with pytest.raises(EngineError, match="weights"):
        import_model(package, package.parent / "out")
    assert secret.read_text() == SECRET


@pytest.mark.parametrize("name", [n for n in ELSEWHERE if n])
@pytest.mark.parametrize("own", [True, False])
def test_no_card_is_read_from_elsewhere(own: bool, name: str, package: Path, secret: Path) -> None:
    if not own:
        shutil.rmtree(package)
        (package.parent / "package").mkdir()
        (package / RDF_NAME).write_text(yaml.safe_dump(foreign_package(package)))
    changed(package, lambda rdf: rdf.update(documentation=name.format(secret=secret)))
    with pytest.raises(EngineError, match="names a file"):
        import_model(package, package.parent / "out")
    assert not (package.parent / "out").exists()


@pytest.mark.parametrize("name", [n for n in ELSEWHERE if n])
def test_no_network_is_read_from_elsewhere(name: str, package: Path, secret: Path) -> None:
    shutil.copyfile(package / "model.onnx", secret)
    changed(package, lambda rdf: rdf["weights"]["onnx"].update(source=name.format(secret=secret)))
    with pytest.raises(EngineError, match="names a file"):
        import_model(package, package.parent / "out")


@pytest.mark.parametrize("which", ["inputs", "outputs"])
@pytest.mark.parametrize("name", ["{secret}.npy", "../secret.npy"])
def test_no_test_image_is_read_from_elsewhere(
    name: str, which: str, package: Path, secret: Path
) -> None:
    np.save(secret, np.zeros(3))
    source = name.format(secret=secret)
    changed(package, lambda rdf: rdf[which][0].update(test_tensor={"source": source}))
    with pytest.raises(EngineError, match="names a file"):
        import_model(package, package.parent / "out")


def test_a_test_image_that_would_be_unpickled_is_refused(package: Path) -> None:
    np.save(package / "test-input.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EngineError, match="is no test image"):
        import_model(package, package.parent / "out")


@needs_links
@pytest.mark.parametrize("name", ["README.md", "model.onnx", "test-input.npy", RDF_NAME])
def test_no_link_of_a_package_leads_out(name: str, package: Path, secret: Path) -> None:
    shutil.move(package / name, secret)
    (package / name).symlink_to(secret)
    with pytest.raises(EngineError, match="leads out of"):
        import_model(package, package.parent / "out")
    assert not (package.parent / "out").exists()


@needs_links
@pytest.mark.parametrize("name", [MANIFEST_NAME, "README.md", "model.onnx"])
def test_an_import_writes_through_no_link(name: str, package: Path, secret: Path) -> None:
    out = package.parent / "out"
    out.mkdir()
    (out / name).symlink_to(secret if name != MANIFEST_NAME else package.parent / "new")
    with pytest.raises(EngineError, match="is a link"):
        import_model(package, out)
    assert secret.read_text() == SECRET
    assert not (package.parent / "new").exists()
    assert [p.name for p in out.iterdir()] == [name]


@needs_links
@pytest.mark.parametrize(
    "name", ["README.md", "model.onnx", "test-input.npy", "test-output.npy", RDF_NAME]
)
def test_an_export_writes_through_no_link(name: str, secret: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(secret)
    with pytest.raises(EngineError, match="is a link"):
        export_rdf(load_engine("identity"), out)
    assert secret.read_text() == SECRET


@pytest.fixture
def engine(package: Path) -> Path:
    return import_model(package, package.parent / "engine").engine.folder


@needs_links
@pytest.mark.parametrize("name", ["README.md", MANIFEST_NAME, "model.onnx"])
def test_an_export_takes_nothing_from_elsewhere(name: str, engine: Path, secret: Path) -> None:
    shutil.move(engine / name, secret)
    (engine / name).symlink_to(secret)
    with pytest.raises(EngineError, match="leads out of"):
        export_rdf(load_engine(engine), engine.parent / "out")


def test_a_zip_unpacks_into_its_own_folder(package: Path, secret: Path) -> None:
    with zipfile.ZipFile(package.parent / "a.zip", "w") as file:
        for path in package.iterdir():
            file.write(path, path.name)
        file.writestr("../secret", "overwritten")
        file.writestr(str(secret), "overwritten")
    import_model(package.parent / "a.zip", package.parent / "out")
    assert secret.read_text() == SECRET


def test_what_is_its_own_still_comes_in(package: Path) -> None:
    (package / "docs").mkdir()
    shutil.move(package / "README.md", package / "docs" / "card.md")
    changed(package, lambda rdf: rdf.update(documentation="docs/card.md"))
    found = import_model(package, package.parent / "out")
    assert (found.engine.folder / "README.md").read_text() == (
        package / "docs" / "card.md"
    ).read_text()
    changed(package, lambda rdf: rdf.update(documentation="https://example.org/card.md"))
    assert import_model(package, package.parent / "web").engine.folder.is_dir()


@pytest.mark.parametrize("which", ["inputs", "outputs"])
def test_a_description_without_images_is_no_traceback(which: str, package: Path) -> None:
    changed(package, lambda rdf: rdf.update({which: []}))
    assert import_model(package, package.parent / "out").pcc is None
