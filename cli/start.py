"""Where the ``anyseek`` command starts: Ctrl-C is quiet from here on, during the imports, too."""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def main() -> None:
    """Runs the command line; see ``cli.app.main``."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a job in the background of a shell may ignore it
        # not by an exception: a library that is just being imported may make another of it
        signal.signal(signal.SIGINT, _leave)
    from cli.app import main as run

    signal.signal(signal.SIGINT, usual)
    try:
        run()
    except KeyboardInterrupt:
        _leave()


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """Ends the process at once: nothing is open yet, and no work has begun."""
    if os.isatty(2):
        os.write(2, b"\n")  # after the ^C that the terminal shows
    os._exit(EXIT_INTERRUPTED)
