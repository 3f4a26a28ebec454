"""What people are told after Ctrl-C: what is kept, and how to go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from cli.start import EXIT_INTERRUPTED

COMMITTED = "what is committed is kept: run the same command to go on"


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Lets Ctrl-C end the command with one line.

    Args:
        kept: Gives what follows "interrupted;", when it is known how far it came.

    Raises:
        typer.Exit: With 130, what a shell gives for Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        from cli import render

        if sys.stderr.isatty():
            sys.stderr.write("\n")  # after the ^C that the terminal shows
        render.remark(f"interrupted; {kept()}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
