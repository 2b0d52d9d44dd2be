"""What a file names lies beneath the folder that it came in, or is refused.

Every way out that is known is tried.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from livesr.base import contained
from livesr.base.errors import EngineError, StoreError

SECRET = "what is not its own"
needs_links = pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def folder(tmp_path: Path, outside: Path) -> Path:
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("own")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside/secret",
        "sub/../../outside/secret",
        "sub/..",
        "./sub/file",
        "sub//file",
        "sub/",
        "/",
        "/etc/passwd",
        "C:/Windows/win.ini",
        "C:secret",
        "..\\outside\\secret",
        "\\\\server\\share\\x",
        "sub\\file",
        "a\0b",
        "a\ud800b",
        "a\nb",
        "x" * 256,
        "é" * 200,
        "d/" * 3000 + "x",
        None,
        3,
        ["sub"],
        {"sub": 1},
    ],
    ids=repr,
)
def test_a_name_that_is_no_path_beneath_is_refused(name: object, folder: Path) -> None:
    for rule in (contained.beneath, contained.beneath_to_write):
        with pytest.raises(EngineError, match=r"[eE]xpected"):
            rule(folder, name, error=EngineError)
    with pytest.raises(StoreError):
        contained.read_text(folder, name)
    with pytest.raises(StoreError):
        contained.write_text(folder, name, "x")


@pytest.mark.parametrize(
    "name",
    [
        "sub/file",
        "sub",
        "new",
        "new/er",
        "..file",
        "a b",
        "...",
        "größe",
        "x" * 200,
        "全角\u3000空白",
        "a\xa0b",
    ],
)
def test_a_name_beneath_is_itself(name: str, folder: Path) -> None:
    assert (
        contained.beneath(folder, name) == folder / name == contained.beneath_to_write(folder, name)
    )


def test_what_is_written_is_read(folder: Path) -> None:
    contained.write_text(folder, "new", "a\nb")
    contained.replace_text(folder, "new", "c\nd")
    contained.copy_out(folder, "new", folder, "sub/copy")
    assert contained.read_text(folder, "sub/copy") == "c\nd"
    assert sorted(p.name for p in folder.iterdir()) == ["new", "sub"]


@needs_links
@pytest.mark.parametrize("link", ["secret", "folder/secret", "deep/down/secret", "hop"])
def test_no_link_leads_out(link: str, folder: Path, outside: Path) -> None:
    (folder / "secret").symlink_to(outside / "secret")
    (folder / "folder").symlink_to(outside)
    (folder / "deep").mkdir()
    (folder / "deep" / "down").symlink_to(Path("..") / ".." / "outside")
    (folder / "hop").symlink_to("secret")
    with pytest.raises(StoreError, match="leads out of"):
        contained.read_bytes(folder, link)
    for write in (contained.write_text, contained.replace_text):
        with pytest.raises(StoreError, match="is a link"):
            write(folder, link, "overwritten")
    with pytest.raises(StoreError, match="is a link"):
        contained.open_to_write(folder, link, "r+")
    assert (outside / "secret").read_text() == SECRET


@needs_links
def test_a_new_file_is_not_written_through_a_link_to_nothing(folder: Path, outside: Path) -> None:
    (folder / "new").symlink_to(outside / "made")
    (folder / "dir").symlink_to(outside)
    for name in ("new", "dir/made"):
        with pytest.raises(StoreError, match="is a link"):
            contained.write_text(folder, name, "x")
    assert not (outside / "made").exists()


@needs_links
def test_the_file_that_takes_anothers_place_is_written_through_no_link(
    folder: Path, outside: Path
) -> None:
    (folder / "about").write_text("old")
    (folder / ".about.new").symlink_to(outside / "secret")
    contained.replace_text(folder, "about", "new")
    assert (folder / "about").read_text() == "new"
    assert (outside / "secret").read_text() == SECRET


@needs_links
def test_a_link_that_stays_inside_is_read_and_never_written(folder: Path) -> None:
    (folder / "alias").symlink_to("sub")
    assert contained.read_text(folder, "alias/file") == "own"
    with pytest.raises(StoreError, match="is a link"):
        contained.write_text(folder, "alias/file", "x")
    contained.refuse_links(folder)
    with pytest.raises(StoreError, match="is a link"):
        contained.refuse_links(folder, writing=True)


@needs_links
def test_a_link_above_is_the_users_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(folder)
    own = tmp_path / "disk"
    assert contained.read_text(own, "sub/file") == "own"
    contained.write_text(own, "sub/file", "changed")
    contained.refuse_links(own, writing=True)
    assert (folder / "sub" / "file").read_text() == "changed"


@needs_links
def test_a_neighbour_whose_name_begins_alike_is_outside(folder: Path) -> None:
    other = folder.with_name("given-too")
    other.mkdir()
    (folder / "link").symlink_to(other)
    with pytest.raises(StoreError, match="leads out"):
        contained.beneath(folder, "link")


@needs_links
def test_a_tree_is_searched_for_links(folder: Path, outside: Path) -> None:
    chunks = folder / "image" / "0" / "c"
    chunks.mkdir(parents=True)
    (chunks / "7").symlink_to(outside / "secret")
    contained.refuse_links(folder, but=("*", "*", "c"))
    with pytest.raises(StoreError, match="c/7 leads out"):
        contained.refuse_links(folder)
    (folder / "c").mkdir()
    (folder / "c" / "link").symlink_to(outside)
    with pytest.raises(StoreError, match="c/link leads out"):
        contained.refuse_links(folder, but=("*", "*", "c"))
    (folder / "c" / "link").unlink()
    (folder / "image" / "1").mkdir()
    (folder / "image" / "1" / "c").symlink_to(outside)
    with pytest.raises(StoreError, match="1/c leads out"):
        contained.refuse_links(folder, but=("*", "*", "c"))


@needs_links
@pytest.mark.parametrize("name", ["round", "up"])
def test_links_that_go_round_end(name: str, folder: Path) -> None:
    (folder / "round").symlink_to("round")
    (folder / "up").symlink_to("..")
    with pytest.raises((StoreError, OSError)):
        contained.read_bytes(folder, name)


@needs_links
def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    def attempt() -> None:
        for opened in (contained.open_to_read, lambda f, n: contained.open_to_write(f, n, "r+")):
            with pytest.raises((StoreError, OSError)):
                opened(folder, "pipe")

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
