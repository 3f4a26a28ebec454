"""The right to write to an index, and a word about who has it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path


def alone(index: Path) -> AbstractContextManager[None]:
    """Holds the right to write to an index; says so if it must wait for it."""
    from cli import render
    from indexer.lock import exclusive

    return exclusive(
        index,
        on_wait=lambda: render.remark(
            f"another `anyseek` is writing to {index}; waiting until it is done"
        ),
    )


def remark_on_writer(index: Path, instead: str) -> None:
    """Says that another process is writing to an index that is only read here.

    Args:
        index: Its file.
        instead: What is done with what that process has committed by now.
    """
    from indexer.lock import is_held

    if is_held(index):
        from cli import render

        render.remark(
            f"another `anyseek` is writing to {index}; what it has committed by now {instead}"
        )
