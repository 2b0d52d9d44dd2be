"""frames.jsonl of a store that was killed or damaged.

What can be read of it, and what is corrected.

Owns the lines. Looks at no array.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from livesr.base import contained
from livesr.base.documents import to_json
from livesr.base.words import counted, spans
from livesr.formats.frames_log import Event, LogContents, read_log, stored_lines
from livesr.formats.store import Image
from livesr.store.shard_inspection import ImageInspection, Where


class MendedLog:
    """frames.jsonl with the lines that are to be corrected.

    Attributes
    ----------
    events : every line that is understood
    problem : what is not, a sentence; "" if all of it is
    is_damaged : whether a line that is not understood stands behind one that is: no repair has
        looked at the file since
    loses : whether writing it again leaves out, or moves, what is not understood
    changed : whether the file is to be written again
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        found = read_log(path) if path.is_file() else LogContents([])
        self.events, self.problem = found.events, found.problem
        unknown = [line for line in found.unknown if not line.keys]
        # They may mean something to somebody. A repair puts them first, and what they were about is
        # told anew behind them.
        self._unknown = b"".join(line.text + b"\n" for line in unknown)
        self.is_damaged = any(line.number != place for place, line in enumerate(unknown, start=1))
        self.loses = self.is_damaged or len(unknown) < len(found.unknown)
        self.changed = self.is_damaged or not _ends_with_its_line(path)
        self._by_image: defaultdict[tuple[str, int, str], list[Event]] = defaultdict(list)
        self._places: dict[tuple[str, int, str], defaultdict[Where, list[Event]]] = {}
        for event in self.events:
            self._by_image[event["series"], event["position"], event["channel"]].append(event)

    def stored(self, image: Image) -> list[Event]:
        """Return the lines about pictures of an image, for the caller to correct.

        Of several about one, the last.
        """
        return list(stored_lines(self._about(image)).values())

    def told(self, image: Image) -> set[Where]:
        """Return (t, z) of everything that a line about the image is about."""
        return {(e["t"], e["z"]) for e in self._about(image)}

    def lacking(self, image: Image) -> list[Where]:
        """Return (t, z) of what the image had and has no longer, or not in full."""
        lacking: dict[Where, bool] = {}
        for event in self._about(image):
            if event["stored"] or event.get("lost") or event.get("elsewhere"):
                lacking[event["t"], event["z"]] = bool(event.get("lost") or event.get("damaged"))
        return sorted(where for where, lost in lacking.items() if lost)

    def holes(self, image: ImageInspection) -> list[int]:
        """Return the time points that an image lacks though it has later ones."""
        return sorted({t for t, _ in self.lacking(image.image) if t < image.readable_length})

    def damage(self, image: ImageInspection) -> Iterator[str]:
        """Say what an image lacks."""
        name = image.image.name
        if lacking := self.lacking(image.image):
            yield (
                f"{name} lacks {counted(len(lacking), 'picture')}, or some of its planes: t ="
                f" {', '.join(spans(t for t, _ in lacking))}."
            )
        repaired = any(e.get("repaired") for e in self._about(image.image))
        if image.image.kind == "raw" and repaired and (holes := image.holes()):
            gaps = ", ".join(f"{first}-{last}" for first, last in holes)
            yield (
                f"{name} has no file for t = {gaps}, and the lines about them are lost: nobody"
                " knows what was there."
            )

    def correct(self, image: Image, line: Event, **facts: Any) -> None:
        """Change a line; lines before it about a picture that is lost are no promise either."""
        line.update(facts)
        self.changed = True
        if facts.get("lost"):
            for event in self._by_place(image)[line["t"], line["z"]]:
                event.update(facts)

    def add(self, line: Event) -> None:
        """Add a line."""
        self.events.append(line)
        self._by_image[line["series"], line["position"], line["channel"]].append(line)
        self.changed = True

    def rewrite(self) -> bool:
        """Replace the file if something changed; return whether it did."""
        if not self.changed:
            return False
        known = "".join(to_json(e) + "\n" for e in self.events).encode()
        contained.replace_bytes(self._path.parent, self._path.name, self._unknown + known)
        return True

    def _about(self, image: Image) -> list[Event]:
        return self._by_image[image.kind, image.position, image.channel]

    def _by_place(self, image: Image) -> defaultdict[Where, list[Event]]:
        """Return the lines about what an image was said to hold."""
        place = image.kind, image.position, image.channel
        if place not in self._places:
            self._places[place] = defaultdict(list)
            for event in self._about(image):
                if event["stored"]:
                    self._places[place][event["t"], event["z"]].append(event)
        return self._places[place]


def drop_unfinished_line(path: Path) -> bool:
    """Cut off a last line that a killed process left unfinished, so that the next does not continue
    it; return whether there was one.
    """
    with contained.open_to_write(path.parent, path.name, "r+") as file:
        content: bytes = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
    return whole < len(content)


def _ends_with_its_line(path: Path) -> bool:
    """Whether a file is empty, absent, or ends with a line feed."""
    if not path.is_file():
        return True
    with contained.open_to_read(path.parent, path.name) as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
