"""`livesr view [ENDPOINT|STORE]`: the three-colour preview, in the browser or in a window."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.markup import escape

from livesr.base.errors import LiveSRError
from livesr.cli import options
from livesr.cli.output import JSON, console, errors_console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from livesr.viewer.browser.server import PreviewServer
    from livesr.viewer.frame_pairs import FramePairSource
    from livesr.viewer.successive import SuccessiveSource


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(view)


def view(
    source: Annotated[
        str, typer.Argument(help="Address that a run publishes on, or an OME-Zarr that a run left.")
    ] = "tcp://127.0.0.1:5555",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="Address to serve the page on; beyond this computer a link lets in one browser."
        ),
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
    window: Annotated[
        bool, typer.Option("--window", help="A desktop window (ndv) instead of the browser.")
    ] = False,
    keys: options.ViewerKeysFolder = None,
    as_json: JSON = False,
) -> None:
    """Show the separated structures beside the measurement until Ctrl-C.

    [dim]Example:[/] livesr view tcp://127.0.0.1:5555
    """
    if window:
        from livesr.viewer.window import show_window

        with pairs_of(source, keys) as pairs:
            show_window(pairs)
        return
    out, browser = console(quiet=as_json), browser and not as_json
    with (
        pairs_of(source, keys) as pairs,
        served(pairs, out, host=host, port=port, browser=browser) as url,
    ):
        if as_json:
            print_json({"url": url, "source": source})
        while True:
            time.sleep(0.5)


@contextmanager
def pairs_of(source: str, keys: Path | None = None) -> Iterator[FramePairSource]:
    """Give what there is to see at an address or in a store while the block runs."""
    from livesr.formats.object_store import address_of
    from livesr.viewer.frame_pairs import LiveFramePairs
    from livesr.viewer.store_source import StoreSource
    from livesr.viewer.subscriber import Subscriber

    if "://" not in source or address_of(source):
        yield StoreSource(source)
        return
    with Subscriber(source, keys=keys) as subscriber:
        yield LiveFramePairs(subscriber)


@contextmanager
def served(
    pairs: FramePairSource,
    out: Console,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    browser: bool = True,
) -> Iterator[str]:
    """Serve the page for `pairs` while the block runs.

    Gives an address that lets in one browser.
    """
    from livesr.viewer.browser.opening import opened
    from livesr.viewer.browser.server import PreviewServer

    with PreviewServer(pairs, host=host, port=port) as server:
        every = host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        links = _Links(
            server, socket.gethostname() if every else None, errors_console() if out.quiet else out
        )
        if server.needs_invitation:
            out.print(f"Preview, for one browser: [bold]{links.shown}[/]", soft_wrap=True)
        else:
            out.print(f"Preview: [bold]{links.shown}[/]", soft_wrap=True)
        with opened(server.invite("localhost" if every else None)) if browser else nullcontext():
            yield links.shown


class RunPreview:
    """The page of a run: the run while it lasts, then what it left, until Ctrl-C.

    Parameters
    ----------
    wanted : whether there is to be one at all
    out : where its address is printed
    """

    def __init__(self, wanted: bool, out: Console) -> None:
        self._wanted, self._out = wanted, out
        self._open = ExitStack()
        self._source: SuccessiveSource | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def begin(self, endpoint: str | None, keys: Path | None) -> None:
        """Show the run that publishes at `endpoint`."""
        from livesr.formats.keys import LOCAL
        from livesr.viewer.successive import SuccessiveSource

        if not self._wanted or endpoint is None:
            return
        # An address for everybody is one to bind to; not every system connects to it.
        local = re.sub(r"//(0\.0\.0\.0|\[::\])", "//127.0.0.1", endpoint)
        live = self._open.enter_context(pairs_of(local, keys / LOCAL if keys else None))
        self._source = SuccessiveSource(live)
        self._open.enter_context(served(self._source, self._out))

    def linger(self, report: Mapping[str, Any]) -> None:
        """Play what a run left until Ctrl-C; of a run without a store, its last picture stays.

        Returns at once where the run was interrupted or failed.
        """
        if self._source is None or report["exit_code"]:
            return
        from livesr.viewer.store_source import StoreSource

        if store := report.get("store"):
            with suppress(LiveSRError):  # nothing in it to look at: the last picture stays
                self._source.follow_with(StoreSource(store))
        self._out.print("The preview stays until Ctrl-C.")
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.5)


class _Links:
    """The link that stands last in the terminal; when it is used, the next one is printed."""

    def __init__(self, server: PreviewServer, name: str | None, out: Console) -> None:
        self._server, self._name, self._out = server, name, out
        self.shown = server.invite(name)
        server.on_joined(self._joined)

    def _joined(self, code: str, address: str) -> None:
        if self.shown.endswith(code):
            self.shown = self._server.invite(self._name)
            said = f"A browser at {escape(address)} has joined. For one more: [bold]{self.shown}[/]"
            self._out.print(said, soft_wrap=True)
