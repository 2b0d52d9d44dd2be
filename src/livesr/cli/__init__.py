"""The command line: one file per command.

Owns the application and how errors become exit codes: 0 done, 1 failed, 2 bad usage or input, 130
interrupted. Importing this loads no camera core, runtime or network library: each command imports
what it needs when it runs.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from livesr.base.errors import LiveSRError
from livesr.base.version import __version__
from livesr.cli import (
    backfill,
    bench,
    build,
    calibrate,
    calibrate_errors,
    calibrate_limits,
    characterise,
    check,
    demo,
    engine,
    evaluate,
    export,
    gui,
    info,
    keys,
    limits,
    listen,
    new,
    process,
    quantise,
    repair,
    run,
    serve,
    train,
    view,
)
from livesr.cli.help import Application, Commands
from livesr.cli.output import errors_console, print_json

INTERRUPTED = 130


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"livesr {__version__}")
        raise typer.Exit


app = Application(
    name="livesr",
    cls=Commands,
    help="Live multicolour super-resolution for Micro-Manager microscopes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_say_version, help="Show the version and exit."
        ),
    ] = False,
) -> None: ...


_PANELS = {
    "Start here": (demo, info),
    "A rig": (new, check, characterise, calibrate, calibrate_errors, calibrate_limits, run),
    "While it runs": (view, gui, listen, keys),
    "Stores and recordings": (process, backfill, repair, export),
    "Engines": (train, limits, evaluate, quantise, build, engine, serve),
    "This computer": (bench,),
}

for app.panel, modules in _PANELS.items():
    for module in modules:
        module.register(app)


def main() -> NoReturn:
    """Entry point of the `livesr` command."""
    _log_to_stderr(os.environ.get("LIVESR_LOG", "CRITICAL").upper())
    # A service manager's stop, and Ctrl-Break on Windows, end a run as cleanly as Ctrl-C.
    endings = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
    ]
    for number in endings:
        signal.signal(number, signal.default_int_handler)
    _answer_hangup()
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a Windows pipe is cp1252: a character that it lacks must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _run(sys.argv[1:])
        if code == INTERRUPTED:
            _ignore(endings)
    except KeyboardInterrupt:  # a second one, while the first was being answered
        code = INTERRUPTED
        _ignore(endings)
    if threading.active_count() > 1 and (code == INTERRUPTED or _left_behind()):
        # A driver or a network that does not return still runs in its thread: to take what it uses
        # from under it crashes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _answer_hangup() -> None:
    """Let a terminal that goes (a closed window, a lost connection) end a run as Ctrl-C does.

    Not under nohup.
    """
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def hang_up(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(
            number, signal.SIG_IGN
        )  # shell and kernel may both send it: the second must not abandon what is left
        # Whatever is printed to a terminal that is gone is an error, and must not cost the end of a
        # run.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in terminals:
            os.dup2(nowhere, fd)
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, hang_up)


def _left_behind() -> bool:
    """Whether a thread of livesr's own still runs, as one does that a network or a listener never
    came back to.
    """
    return any(thread.name.startswith("livesr-") for thread in threading.enumerate())


def _ignore(endings: list[signal.Signals]) -> None:
    """Hear none of `endings` any more.

    The interpreter's own end restores what kills, for all but what is ignored.
    """
    for number in endings:
        signal.signal(number, signal.SIG_IGN)


def _log_to_stderr(level: str) -> None:
    """Show records of `level` and above.

    What matters to people is printed by the commands themselves.
    """
    level = (
        level if level in logging.getLevelNamesMapping() else "WARNING"
    )  # a typo must not end a run
    handler = logging.StreamHandler()
    handler.setLevel(level)  # of the handler: libraries set levels of their own loggers
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("livesr").setLevel(level)


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # Not `app(...)`: it makes one of an interruption and of a command that ends with 130 after
        # its report.
        with command.make_context("livesr", arguments.copy()) as context:
            command.invoke(context)
    except typer.Exit as e:
        return e.exit_code
    except KeyboardInterrupt:
        if "--json" in arguments:
            try:
                print_json({"error": "Interrupted.", "exit_code": INTERRUPTED})
            except BrokenPipeError:
                _print_no_more()
        return INTERRUPTED
    except MemoryError as e:
        short = f"The memory does not suffice ({e or 'none is left'})"
        code = _failed(
            f"{short}: raise the limit of this process, or take smaller frames.", 1, arguments
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(
            code
        )  # what is half allocated, a camera core above all, crashes when it is taken down
    except BrokenPipeError:  # whoever read the output has gone, as in `livesr info | head -1`
        _print_no_more()
        return 1
    except LiveSRError as e:
        return _failed(str(e), e.exit_code, arguments)
    except OSError as e:
        if e.errno is None:  # of a library that says more in its own words
            raise
        logging.getLogger("livesr.cli").debug("the system refused", exc_info=True)
        place = f"{e.filename}: " if e.filename is not None else ""
        return _failed(
            f"{place}{e.strerror}. Is it there, may you read and write there, and has its disk"
            " room? LIVESR_LOG=DEBUG says where it happened.",
            1,
            arguments,
        )
    except Exception as e:
        if hasattr(e, "exit_code") and hasattr(
            e, "format_message"
        ):  # bad usage, in the words of typer
            return _failed(e.format_message(), e.exit_code, arguments)
        raise
    return 0


def _print_no_more() -> None:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 for the interpreter's last flush


def _failed(sentence: str, code: int, arguments: list[str]) -> int:
    if "--json" in arguments:
        print_json({"error": sentence, "exit_code": code})
    elif sentence:  # none where the help was the answer
        errors_console().print(f"[bold red]livesr:[/] {escape(sentence)}", highlight=False)
    return code
