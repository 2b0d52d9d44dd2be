"""Localisations as Picasso's HDF5, while the run goes on.

Owns the files. What they hold is `livesr.formats.picasso`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from livesr.base.errors import ConfigError
from livesr.base.files import check_folder, next_free_path
from livesr.base.frames import SRFrame
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.formats.layout import folder_names
from livesr.formats.picasso import append_locs, locs_of, need_h5py, write_info
from livesr.live.sinks.sink import Sink


class PicassoSink(Sink):
    """Appends every group's localisations to an HDF5 of its position and channel, as measured.

    Between two groups the files are closed and whole: Picasso opens them during the run, and after
    one that was killed.

    Parameters
    ----------
    folder : created if needed, one that exists gets the next number; named by the start of the run
        in UTC without, in the current folder
    """

    name = "picasso"
    lossless = True

    def __init__(self, folder: Path | str | None = None) -> None:
        self._asked = Path(folder) if folder else None
        self.folder: Path | None = None
        self._files: dict[tuple[int, str], tuple[Path, ChannelDescription]] = {}

    def check(self) -> None:
        """Look whether h5py is there, and whether the folder can be made.

        Raises
        ------
        ConfigError
            If it cannot.
        BackendError
            If h5py is missing.
        """
        need_h5py()
        parent = self._asked.absolute().parent if self._asked else Path()
        try:
            check_folder(parent)
        except OSError as e:
            raise ConfigError(
                f"Cannot write Picasso's files into {parent.absolute()}: {e.strerror or e}. Choose"
                " a folder that you can write to."
            ) from e

    def open(self, run: RunDescription) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError
            If nothing is localised.
        BackendError
            If h5py is missing.
        """
        need_h5py()
        places = [(p, c) for p, c in run.places if c.localises]
        if not places:
            raise ConfigError(
                "Picasso's files hold localisations, and no channel of this run localises: leave"
                " out the sink 'picasso'."
            )
        start = datetime.fromtimestamp(run.started_ns / 1e9, UTC)
        asked = self._asked or Path(f"picasso-{start:%Y%m%d-%H%M%S}")
        self.folder = next_free_path(asked)
        self.folder.mkdir(parents=True)
        positions = folder_names(run.positions)
        channels = tuple(c.name for c in run.channels)
        names = folder_names(channels)
        for p, c in places:
            place = (
                f"_{positions[p]}_{names[channels.index(c.name)]}" if len(run.places) > 1 else ""
            )
            self._files[p, c.name] = self.folder / f"localisations{place}.hdf5", c

    def recon(self, frame: SRFrame) -> None:
        """Append what a group added."""
        key = frame.stream.position, frame.stream.channel
        if frame.localisations is None or key not in self._files:
            return
        file, channel = self._files[key]
        pixel_nm = 1000 * channel.raw_pixel_size_um
        append_locs(file, locs_of(frame.localisations, pixel_nm))
        frames = (frame.t + 1) * len(channel.raw_labels)
        about = (channel.raw_dtype, frames, channel.raw_shape, pixel_nm)
        write_info(file.with_suffix(".yaml"), channel.name or "film", *about)
