"""How the installed command starts, and how it ends while it starts."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["anyseek"]
STOPPED = """
import os, signal, sys
{before}
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))  # handlers run between two steps of the interpreter
sys.meta_path.insert(0, Stop())
sys.argv = ["anyseek", "status"]
import importlib
module, _, function = "{script}".partition(":")
getattr(importlib.import_module(module), function)()
"""


def stopped(module: str, before: str = "") -> list[str]:
    """Gives a command that gets Ctrl-C when it imports a module."""
    code = STOPPED.format(module=module, script=SCRIPT, before=before)
    return [sys.executable, "-c", code]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment without an index."""
    return os.environ | {"PYTHONPATH": str(ROOT), "ANYSEEK_INDEX": str(tmp_path / "gone.db")}


@pytest.mark.parametrize("module", ["typer", "cli.app", "cli.options", "retrieval.store"])
def test_interrupt_during_imports(module: str, env: dict[str, str]) -> None:
    """No traceback, neither from the first imports nor from those of a command."""
    done = subprocess.run(stopped(module), env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_interrupt_on_a_terminal(env: dict[str, str]) -> None:
    """The shell's prompt begins on a new line."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(stopped("typer"), env=env, stderr=theirs) as process:
        assert process.wait() == 130
    os.close(theirs)
    assert os.read(ours, 1000) == b"\r\n"
    os.close(ours)


def test_ignored_interrupts_stay_ignored(env: dict[str, str]) -> None:
    """A job in the background of a shell is not stopped by what is meant for another."""
    before = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    done = subprocess.run(stopped("typer", before), env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("anyseek: there is no index at ")
