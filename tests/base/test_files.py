"""A file that is replaced at once, also where a reader holds the old one for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from livesr.base.files import check_folder, check_place, replace_file


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old", encoding="utf-8")
    (tmp_path / "new").write_text("new", encoding="utf-8")
    replace_file(tmp_path / "new", tmp_path / "old")
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("refusals", [3, 10**6])
def test_a_reader_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    left, really = [refusals], Path.replace

    def as_windows_does(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(
                32, "The process cannot access the file because it is being used by another process"
            )
        return really(self, target)

    monkeypatch.setattr(Path, "replace", as_windows_does)
    monkeypatch.setattr("livesr.base.files._PATIENCE_S", 0.2)
    if refusals > 100:
        with pytest.raises(PermissionError):
            replace_file(tmp_path / "new", tmp_path / "old")
    else:
        replace_file(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old").read_text(encoding="utf-8") == "new"


def test_a_folder_that_takes_nothing_is_no_reader(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    with pytest.raises(OSError, match="missing"):
        replace_file(tmp_path / "new", tmp_path / "missing" / "place")


def test_a_look_whether_a_folder_takes_files_leaves_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "not" / "there"):
        check_folder(folder)
        check_place(folder / "report.json")
    assert not list(tmp_path.iterdir())


def test_what_takes_no_files_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder", encoding="utf-8")
    for check, path in (
        (check_folder, file),
        (check_folder, file / "runs" / "light"),
        (check_place, file / "report.json"),
    ):
        with pytest.raises(OSError, match="file") as raised:
            check(path)
        assert raised.value.filename == str(file)
    with pytest.raises(IsADirectoryError):
        check_place(tmp_path)
    assert list(tmp_path.iterdir()) == [file]
