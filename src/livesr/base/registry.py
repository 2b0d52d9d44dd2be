"""Names to classes, imported on use: asking what exists loads nothing.

Owns `Registry`. A new modality, runtime or sink is one file and one line in the registry of its
kind; another package adds one by an entry point of the registry's group.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from livesr.base.errors import ConfigError, LiveSRError, suggestion

log = logging.getLogger(__name__)
T = TypeVar("T")


class Registry:
    """``{"name": "module:attribute"}`` with a kind, for messages that can be understood.

    Parameters
    ----------
    kind : what a name stands for, in a word: "backend"
    entries : livesr's own names, in order of preference
    entry_points : the group in which other packages announce more of the kind, as
        "livesr.backends"; None where they cannot. A name of livesr's own cannot be taken over
    """

    def __init__(
        self, kind: str, entries: Mapping[str, str], entry_points: str | None = None
    ) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._group = entry_points

    @property
    def names(self) -> list[str]:
        """Known names, in order of preference; those of other packages come last."""
        return [*self._entries, *self._announced]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; other packages are asked only if it is none of livesr's."""
        return name in self._entries or name in self._announced

    def package(self, name: str) -> str:
        """Return which package brings `name`, as "example 1.0"; "livesr" for its own names."""
        point = None if name in self._entries else self._announced.get(name)
        return package_of(point) if point else "livesr"

    def load(self, name: str) -> Any:
        """Import and return the class or object called `name`.

        Raises
        ------
        ConfigError
            If no such name is registered, or the package that announces it cannot be loaded.
        """
        if name in self._entries:
            module, _, attribute = self._entries[name].partition(":")
            return getattr(import_module(module), attribute)
        if name in self._announced:
            return load_announced(self.kind, self._announced[name])
        raise ConfigError(f"Unknown {self.kind} {name!r}.{suggestion(name, self.names)}")

    def make(self, name: str, kind: type[T]) -> T:
        """Make and return an object of the class called `name`, which takes no arguments.

        Raises
        ------
        ConfigError
            As `load`; or if another package's class cannot be made, or makes no `kind`.
        """
        found = self.load(name)
        if name in self._entries:
            return cast("T", found())
        with self.blamed(name, "cannot be made"):
            made = found()
        if not isinstance(made, kind):
            raise ConfigError(
                f"The {self.kind} {name!r} of {self.package(name)} makes a"
                f" {type(made).__name__}, which is no {kind.__name__}. Update or uninstall that"
                " package."
            )
        return made

    @contextmanager
    def blamed(
        self, name: str, what: str, error: type[LiveSRError] = ConfigError
    ) -> Iterator[None]:
        """Let an error in what another package brings be a sentence that names the package.

        Errors of livesr, and of what it brings itself, stay as they are.

        Parameters
        ----------
        what : went wrong, as "cannot be made"
        error : kind of the error that says so

        Raises
        ------
        LiveSRError
            `error`, with that sentence.
        """
        try:
            yield
        except LiveSRError:
            raise
        except (Exception, SystemExit) as e:  # a package of others can fail in any way
            if name not in self._announced:
                raise
            raise error(
                f"The {self.kind} {name!r} of {self.package(name)} {what}: {type(e).__name__}: {e}."
                " Update or uninstall that package."
            ) from e

    @cached_property
    def _announced(self) -> dict[str, EntryPoint]:
        """What other packages announce, by name. Only their metadata is read."""
        found: dict[str, EntryPoint] = {}
        for point in announced(self._group) if self._group else []:
            first = "livesr" if point.name in self._entries else None
            if point.name in found:
                first = package_of(found[point.name])
            if first is None:
                found[point.name] = point
            else:
                log.warning(
                    "%s has a %s called %r, which is that of %s already: it is left out.",
                    package_of(point),
                    self.kind,
                    point.name,
                    first,
                )
        return found


def announced(group: str) -> list[EntryPoint]:
    """Return the entry points of a group, sorted by name and package. Loads none of them."""
    return sorted(entry_points(group=group), key=lambda p: (p.name, package_of(p)))


@cache
def announced_folders(group: str) -> tuple[tuple[str, Path], ...]:
    """Return the folders that packages announce in a group, each with the package's name.

    An entry point names the folder as if it were imported: "package.engines" is the folder
    ``engines`` beside the code of ``package``. Nothing is imported.
    """
    found = []
    for point in announced(group):
        top, *inner = point.module.split(".")
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            spec = None
        roots = (spec.submodule_search_locations or ()) if spec else ()
        folder = next((p for root in roots if (p := Path(root, *inner)).is_dir()), None)
        if folder is None:
            log.warning(
                "%s announces %s in %s, where there is no such folder: update or uninstall it.",
                package_of(point),
                point.value,
                group,
            )
        else:
            found.append((package_of(point), folder))
    return tuple(found)


def package_of(point: EntryPoint) -> str:
    """Return the package of an entry point with its version, as "example 1.0"."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def load_announced(kind: str, point: EntryPoint) -> Any:
    """Import and return what an entry point of another package names.

    Raises
    ------
    ConfigError
        If the package cannot be imported, or has not what it announces.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as e:  # a package of others can fail in any way
        raise ConfigError(
            f"The {kind} {point.name!r} of {package_of(point)} cannot be loaded from"
            f" {point.value}: {type(e).__name__}: {e}. Update or uninstall that package."
        ) from e
