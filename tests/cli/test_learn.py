"""``anyseek learn adapter`` from the command line: what goes wrong is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.app import main

pytest.importorskip("torch")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the command in this process and gives its exit code."""
    words = ["anyseek", "learn", "adapter", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_one_kind_of_material_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither or both is wrong usage."""
    out = tmp_path / "out"
    assert run(monkeypatch, "-o", out) == 2
    assert run(monkeypatch, "-o", out, "--captions", "a", "--classes", "b") == 2
    assert "give either --captions or --classes" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "one"], "has 1 folder: at least two classes are needed"),
        (["--captions", "gone.tsv"], "cannot read the captions"),
        (["--captions", "list.tsv"], "names 1 file (a.png) not in"),
        (["--captions", "list.tsv", "--method", "cache"], "a cache needs classes"),
        (["--classes", "two", "--method", "context"], "use --method linear, mlp or cache"),
        (["--captions", "list.tsv", "--from", "one"], "there is no adapter in"),
        (["--captions", "list.tsv", "--model", "none"], "there is no model named"),
    ],
)
def test_what_goes_wrong_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """Exit code 1, nothing written but the work folder, and what to do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one" / "dog").mkdir(parents=True)
    (tmp_path / "list.tsv").write_text("image\tcaption\na.png\ta dog\n")
    assert run(monkeypatch, "-o", "out", *arguments) == 1
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert not (tmp_path / "out" / "model.toml").exists()
