"""Names of livesr and of other packages, found without importing either."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from livesr.base.errors import ConfigError
from livesr.base.registry import Registry, announced_folders

GROUP = "livesr.test_things"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package of one module into a folder on the path of imports."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, code: str, points: dict[str, str]) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = "\n".join(f"{k} = {v}" for k, v in points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")

    announced_folders.cache_clear()
    yield make
    announced_folders.cache_clear()
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def registry(entries: dict[str, str] | None = None) -> Registry:
    return Registry("thing", entries or {"own": "fractions:Fraction"}, entry_points=GROUP)


def test_asking_what_exists_imports_nothing(package) -> None:
    package("things_a", "class Thing: ...", {"bright": "things_a:Thing", "attached": "things_a"})
    known = registry({"own": "a_module_that_is_not_there:Thing"})
    assert known.names == ["own", "attached", "bright"]
    assert known.package("bright") == "things_a 1.2"
    assert known.package("own") == "livesr"
    assert "things_a" not in sys.modules
    assert known.load("bright") is sys.modules["things_a"].Thing
    assert known.load("attached") is sys.modules["things_a"]


def test_a_name_of_livesr_is_not_taken_over(package, caplog) -> None:
    from fractions import Fraction

    package("things_b", "class Thing: ...", {"own": "things_b:Thing"})
    with caplog.at_level(logging.WARNING):
        assert registry().load("own") is Fraction
        known = registry()
        assert known.names == ["own"]
        assert known.names == ["own"]
    assert "things_b 1.2 has a thing called 'own'" in caplog.text
    assert "things_b" not in sys.modules


def test_of_two_packages_with_one_name_the_first_wins(package, caplog) -> None:
    package("things_d", "class Thing: ...", {"twice": "things_d:Thing"})
    package("things_c", "class Thing: ...", {"twice": "things_c:Thing"})
    known = registry()
    assert known.load("twice").__module__ == "things_c"
    assert "things_d 1.2" in caplog.text
    assert "things_c 1.2 already" in caplog.text


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("class Thang: ...", "AttributeError"),
        ("class Thing(", "SyntaxError"),
    ],
)
def test_a_broken_package_is_named_in_a_sentence(package, code: str, reason: str) -> None:
    package("things_e", code, {"broken": "things_e:Thing"})
    known = registry()
    assert known.names == ["own", "broken"]
    with pytest.raises(ConfigError, match=r"thing 'broken' of things_e 1\.2 cannot be") as error:
        known.load("broken")
    assert reason in str(error.value)


def test_an_unknown_name_is_refused_with_what_is_known(package) -> None:
    package("things_f", "class Thing: ...", {"bright": "things_f:Thing"})
    with pytest.raises(ConfigError, match=r"Unknown thing 'bring'.*'bright'"):
        registry().load("bring")


def test_a_folder_of_a_package_is_found_without_importing_it(package, tmp_path: Path) -> None:
    (tmp_path / "things_h" / "engines").mkdir(parents=True)
    (tmp_path / "things_h" / "__init__.py").write_text("raise RuntimeError")
    package("things_h_dist", "", {"all": "things_h.engines"})
    assert announced_folders(GROUP) == (("things_h_dist 1.2", tmp_path / "things_h" / "engines"),)


@pytest.mark.parametrize("place", ["things_i.engines", "no_such_package.engines", "things_i_dist"])
def test_a_folder_that_is_not_there_is_said(package, caplog, place: str) -> None:
    package("things_i_dist", "", {"all": place})
    with caplog.at_level(logging.WARNING):
        assert announced_folders(GROUP) == ()
    assert f"things_i_dist 1.2 announces {place}" in caplog.text


def test_without_a_group_nothing_of_other_packages_is_known(package) -> None:
    package("things_g", "class Thing: ...", {"bright": "things_g:Thing"})
    assert Registry("thing", {"own": "fractions:Fraction"}).names == ["own"]


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("Ends", "cannot be made: SystemExit: 3"),
        ("Raises", "cannot be made: ZeroDivisionError"),
        ("NUMBER", "cannot be made: TypeError"),
        ("Another", "makes a Another, which is no Fraction"),
    ],
)
def test_a_class_of_others_that_makes_nothing_is_named(package, attribute, sentence) -> None:
    from fractions import Fraction

    code = """
class Ends:
    def __init__(self): raise SystemExit(3)
class Raises:
    def __init__(self): 1 / 0
class Another: ...
NUMBER = 3
"""
    package(f"made_{attribute.lower()}", code, {"bad": f"made_{attribute.lower()}:{attribute}"})
    with pytest.raises(ConfigError, match=rf"'bad' of made_\w+ 1.2 {sentence}.*uninstall"):
        registry().make("bad", Fraction)
    assert registry().make("own", Fraction) == Fraction()


def test_a_package_that_ends_the_process_when_it_is_imported_does_not(package) -> None:
    package("things_exit", "raise SystemExit(3)", {"bad": "things_exit:Thing"})
    with pytest.raises(ConfigError, match=r"things_exit 1\.2 cannot be loaded.*SystemExit: 3"):
        registry().load("bad")


def test_an_error_of_livesr_is_not_blamed_on_others(package) -> None:
    package("things_e", "class Thing: ...", {"bad": "things_e:Thing"})
    with pytest.raises(ZeroDivisionError), registry().blamed("own", "cannot count"):
        raise ZeroDivisionError
    with pytest.raises(ConfigError, match="mine"), registry().blamed("bad", "cannot count"):
        raise ConfigError("mine")
    said = r"things_e 1\.2 cannot count: ZeroDivision"
    with pytest.raises(ConfigError, match=said), registry().blamed("bad", "cannot count"):
        raise ZeroDivisionError
