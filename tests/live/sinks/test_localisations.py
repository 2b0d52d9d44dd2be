"""The table of localisations.

What is written is read, a torn row is passed over, frames can be replaced.
"""

from pathlib import Path

import numpy as np
import pytest

from livesr.base.errors import StoreError
from livesr.base.frames import LOCALISATION
from livesr.formats.localisations import HEADER, read_localisations
from livesr.live.sinks.localisations import LocalisationsFile, replace_frames


def table(*frames: int) -> np.ndarray:
    found = np.zeros(len(frames), LOCALISATION)
    found["frame"] = frames
    found["x_nm"], found["y_nm"] = np.arange(len(frames)) + 0.25, 1000.5
    found["photons"], found["uncertainty_nm"] = 812.5, 7.25
    return found


def written(path: Path, *parts: np.ndarray) -> Path:
    file = LocalisationsFile(path)
    for part in parts:
        file.append(part)
    file.close()
    file.close()
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", table(0, 0, 3), table(), table(7))
    np.testing.assert_array_equal(
        read_localisations(path), np.concatenate([table(0, 0, 3), table(7)])
    )
    lines = path.read_text().splitlines()
    assert lines[0] == HEADER.strip()
    assert lines[1].startswith("1,0.25,1000.50,")  # frames from 1, x first, as ThunderSTORM has it
    assert len(read_localisations(written(tmp_path / "empty.csv"))) == 0


def test_a_file_that_is_there_is_continued(tmp_path: Path) -> None:
    path = written(written(tmp_path / "a.csv", table(0)), table(1))
    np.testing.assert_array_equal(read_localisations(path)["frame"], [0, 1])


def test_rows_are_with_the_operating_system_at_once(tmp_path: Path) -> None:
    file = LocalisationsFile(tmp_path / "a.csv")
    file.append(table(0, 1))
    assert len(read_localisations(tmp_path / "a.csv")) == 2
    file.close()


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_torn_last_row_is_left_out(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.csv", table(0, 1, 2))
    path.write_bytes(path.read_bytes()[:-cut])
    np.testing.assert_array_equal(read_localisations(path), table(0, 1, 2)[:2])


def test_frames_are_replaced_in_order(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", table(0, 1, 4, 5, 9))
    new = table(4, 6)
    new["photons"] = 1.0
    replace_frames(path, new, range(4, 8))
    found = read_localisations(path)
    assert list(found["frame"]) == [0, 1, 4, 6, 9]
    assert list(found["photons"] == 1.0) == [False, False, True, True, False]
    replace_frames(tmp_path / "new.csv", table(2), range(0, 4))
    assert len(read_localisations(tmp_path / "new.csv")) == 1


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(StoreError, match="cannot be read as localisations"):
        read_localisations(tmp_path / "a.csv")
    with pytest.raises(StoreError, match="No such file"):
        read_localisations(tmp_path / "b.csv")
