"""The README says everything that there is, and what it shows can be run."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from cli.app import app
from retrieval import errors

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Lists every command with the spellings of its options."""

    def walk(name: str, command: object) -> Iterator[tuple[str, list[str]]]:
        below = getattr(command, "commands", None)
        if below:
            for child, inner in below.items():
                yield from walk(f"{name} {child}", inner)
        else:
            options = [
                option
                for parameter in getattr(command, "params", [])
                if parameter.param_type_name == "option"
                for option in (*parameter.opts, *parameter.secondary_opts)
            ]
            yield name, options

    yield from walk("anyseek", typer.main.get_command(app))


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    """Each command is named in full."""
    assert f"`{name}" in README or f"\n{name} " in README


@pytest.mark.parametrize(
    ("command", "option"),
    [(name, option) for name, options in COMMANDS.items() for option in options],
)
def test_every_option_is_in_the_readme(command: str, option: str) -> None:
    """Each option is named, apart from --help, which the README says everything takes."""
    assert re.search(rf"`{re.escape(option)}(?![\w-])", README), f"{command} {option}"


def test_every_environment_variable_is_in_the_readme() -> None:
    """Each variable that the code reads has its row."""
    source = "".join(
        path.read_text("utf-8")
        for package in ("retrieval", "indexer", "cli")
        for path in (ROOT / package).rglob("*.py")
    )
    named = set(re.findall(r"envvar=\"(\w+)\"", source))
    named |= set(re.findall(r"environ(?:\.\w+\(|\[)\"(\w+)\"", source))
    assert "ANYSEEK_INDEX" in named
    for name in named:
        assert f"| `{name}` |" in README


def test_every_error_is_in_the_readme() -> None:
    """Each class of the error tree has its row, and the tree's drawing names it."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind is not errors.AnyseekError:
            assert f"| `{name}` |" in README
        assert name in (errors.__doc__ or "")


def test_every_extra_is_in_the_readme() -> None:
    """Each extra of the package has its row."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"`[{extra}]`" in README


def test_python_example_runs(tmp_path: Path) -> None:
    """The README's Python code prints three hits on an index of the samples."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    photos = ROOT / "data" / "samples" / "photos"
    some = [str(path) for path in sorted(photos.glob("*mariachi*"))]
    some += [str(path) for path in sorted(photos.glob("*panda*"))]
    some.append(str(ROOT / "data" / "samples" / "texts"))
    index = [sys.executable, "-c", "from cli.app import main; main()", "index", *some]
    subprocess.run(
        [*index, "--index", "index.db"], cwd=tmp_path, env=environment, check=True, timeout=120
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert "mariachi" in lines[0]


def test_links_in_the_readme_lead_somewhere() -> None:
    """Anchors exist as headings, files exist in the repository."""
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (ROOT / target).exists()
    for path in re.findall(r"`((?:data|retrieval|tests)/[\w/.]+\.\w+)`", README):
        assert (ROOT / path).exists(), path
