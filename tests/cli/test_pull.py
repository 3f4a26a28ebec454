"""``anyseek models pull`` from a hub over HTTP, and what is pulled used without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests import checkpoints
from tests.hub import hub
from tests.retrieval import open_clip_checkpoints

ROOT = Path(__file__).resolve().parent.parent.parent


def run(home: Path, endpoint: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, at home in a folder, with a hub at an address."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": endpoint,
        "ANYSEEK_INDEX": str(home / "i.db"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    for name in ("DATA", "CACHE", "STATE", "CONFIG"):
        environment[f"XDG_{name}_HOME"] = str(home / name.lower())
    return subprocess.run(
        [sys.executable, "-c", "from cli.app import main; main()", *map(str, arguments)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
    )


NOWHERE = "http://127.0.0.1:9"  # the port of discard, where nobody listens


@pytest.mark.parametrize("kind", ["open_clip", "clap", "sentence"])
def test_a_model_is_pulled_and_used(tmp_path: Path, kind: str) -> None:
    """What it costs is said; a second pull fetches nothing; then no hub is needed."""
    folder, home = tmp_path / "model", tmp_path / "home"
    home.mkdir()
    if kind == "open_clip":
        folder = open_clip_checkpoints.make("vit", folder)
        name, file = "hf-hub:made/here", "a.png"
        Image.new("RGB", (40, 40), "red").save(home / file)
    elif kind == "clap":
        checkpoints.clap(folder)
        name, file = "clap:made/here", "a.wav"
        soundfile.write(home / file, 0.5 * np.sin(np.arange(48_000) / 10), 48_000)
    else:
        checkpoints.sentences(folder)
        name, file = "st:made/here", "a.txt"
        (home / file).write_text("A dog runs over the beach.")
    done = run(home, NOWHERE, "index", file, "--model", name)
    assert done.returncode == 1
    assert f"get them with `anyseek models pull {name}`" in done.stderr
    with hub({"made/here": folder}) as (address, fetched):
        done = run(home, address, "models", "pull", name)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(f"anyseek: fetching {name} (size and licence")
        assert fetched
        assert not any(one.endswith((".bin", ".pt", ".pth", ".pkl")) for one in fetched)
        before = len(fetched)
        again = run(home, address, "models", "pull", name)
        assert again.returncode == 0, again.stderr
        assert len(fetched) == before
    done = run(home, NOWHERE, "index", file, "--model", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 added")
    done = run(home, NOWHERE, "search", "dog", "--format", "paths")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(file)


def test_a_name_that_the_hub_does_not_have(tmp_path: Path) -> None:
    """One line says so."""
    with hub({}) as (address, _):
        for name in ("hf-hub:no/such", "clap:no/such", "st:no/such"):
            done = run(tmp_path, address, "models", "pull", name)
            assert done.returncode == 1
            first, reason = done.stderr.splitlines()
            assert first.startswith(f"anyseek: fetching {name} (")
            assert reason.startswith("anyseek: ")
            assert "no/such" in reason
