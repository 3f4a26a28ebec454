"""Which package may import which, and what a cold start must not load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("retrieval", "indexer", "cli")
MAY_IMPORT = {
    "retrieval": {"retrieval"},
    "indexer": {"retrieval", "indexer"},
    "cli": {"retrieval", "indexer", "cli"},
}
HEAVY = {
    "torch",
    "open_clip",
    "transformers",
    "sentence_transformers",
    "onnxruntime",
    "faiss",
    "sentencepiece",
    "pypdf",
    "soundfile",
    "soxr",
    "av",
}
ONLY_IN = {
    "faiss": (
        "retrieval/segments.py",
        "retrieval/inverted.py",
        "retrieval/gpu.py",
    ),
    "sqlalchemy": ("retrieval/store/",),
    "sqlite3": ("retrieval/store/",),
    "soundfile": ("retrieval/sounds.py", "retrieval/learn/"),
    "soxr": ("retrieval/sounds.py", "retrieval/learn/"),
    "av": ("retrieval/sounds.py",),
    "PIL": (
        "retrieval/media.py",
        "retrieval/exif.py",
        "retrieval/inscribed.py",
        "retrieval/heat.py",
        "retrieval/towers/",
        "retrieval/learn/",
    ),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "platformdirs": ("cli/", "retrieval/towers/", "retrieval/learn/", "retrieval/vocabulary/"),
}
LEARN = "retrieval/learn/"  # the training program, which nothing else needs


@dataclass(frozen=True)
class Import:
    """One import of a module."""

    file: str
    line: int
    module: str
    cold: bool  # whether it happens when the file itself is imported

    @property
    def top(self) -> str:
        """The outermost package."""
        return self.module.partition(".")[0]


def imports_of(path: Path) -> Iterator[Import]:
    """Finds all imports of a file; those for type checkers alone do not count."""
    file = path.relative_to(ROOT).as_posix()
    package = path.relative_to(ROOT).parent.parts

    def visit(node: ast.AST, cold: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(file, node.lineno, alias.name, cold)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join([*package[: len(package) + 1 - level]]) if level else ""
                full = ".".join(filter(None, (base, module)))
                for alias in names:
                    yield Import(file, node.lineno, f"{full}.{alias.name}", cold)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from (found for other in node.orelse for found in visit(other, cold))
            case _:
                cold = cold and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for child in ast.iter_child_nodes(node):
                    yield from visit(child, cold)

    yield from visit(ast.parse(path.read_text("utf-8")), True)


FILES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
IMPORTS = [found for path in FILES for found in imports_of(path)]


def test_imports_are_found() -> None:
    """The walk sees what is there: every kind of import, warm and cold."""
    assert len(FILES) > 20
    assert {Path(found.file).parts[0] for found in IMPORTS} == set(PACKAGES)
    assert [found for found in IMPORTS if found.top == "faiss" and not found.cold]
    assert [found for found in IMPORTS if found.module == "retrieval.store.Store" and found.cold]
    assert "cli.render" in {found.module for found in IMPORTS}


def test_one_direction() -> None:
    """Imports go from cli to indexer to retrieval, never back, and never into tests or data."""
    wrong = [
        found
        for found in IMPORTS
        if found.top in {*PACKAGES, "tests", "data"}
        and found.top not in MAY_IMPORT[Path(found.file).parts[0]]
    ]
    assert wrong == []


def test_learning_is_apart() -> None:
    """Nothing but the command that starts it knows the training program."""
    wrong = [
        found
        for found in IMPORTS
        if found.module.startswith("retrieval.learn")
        and not found.file.startswith((LEARN, "cli/learn.py"))
    ]
    assert wrong == []


def test_no_heavy_imports_at_the_top() -> None:
    """What takes long to import is imported where it is used."""
    wrong = [
        found
        for found in IMPORTS
        if found.top in HEAVY and found.cold and not found.file.startswith(LEARN)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ONLY_IN)
def test_one_module_per_outside_thing(module: str) -> None:
    """Each outside library is spoken to at one place."""
    where = {found.file for found in IMPORTS if found.top == module}
    assert where
    assert [file for file in sorted(where) if not file.startswith(ONLY_IN[module])] == []


def test_only_the_command_line_prints_and_exits() -> None:
    """No other package prints, exits, or reads the command line; training says what it does."""
    wrong = []
    for path in FILES:
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(("cli/", LEARN)):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="print" | "exit" | "quit" | "input")):
                    wrong.append((file, node.lineno))
                case ast.Attribute(
                    value=ast.Name(id="sys"), attr="exit" | "argv" | "stdout" | "stderr"
                ):
                    wrong.append((file, node.lineno))
                case ast.Name(id="SystemExit"):
                    wrong.append((file, node.lineno))
    assert wrong == []


# ---- what is really loaded ---------------------------------------------------------------------

GUARD = """
import sys
FORBIDDEN = {forbidden!r}
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise RuntimeError("loads " + name)
sys.meta_path.insert(0, Guard())
"""
TRAINING = {"torch", "open_clip", "transformers", "sentence_transformers", "tensorflow", "onnx"}


def loads(code: str, home: Path, *arguments: str, forbidden: set[str]) -> str:
    """Runs code in a fresh interpreter in which forbidden modules cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", GUARD.format(forbidden=forbidden) + code, *arguments],
        cwd=ROOT,
        env=os.environ
        | {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_import_is_light(tmp_path: Path) -> None:
    """`import retrieval` and its words load nothing at all from outside but numpy."""
    outside = HEAVY | TRAINING | {"sqlalchemy", "PIL", "typer", "rich"}
    loads("import retrieval, retrieval.types, retrieval.errors", tmp_path, forbidden=outside)


def test_guard_guards(tmp_path: Path) -> None:
    """The hook that the tests rely on really stops an import."""
    with pytest.raises(AssertionError, match="loads PIL"):
        loads("import PIL", tmp_path, forbidden={"PIL"})


def test_help_is_light(tmp_path: Path) -> None:
    """`anyseek --help` loads neither models nor what reads the index."""
    outside = HEAVY | TRAINING | {"sqlalchemy", "PIL"}
    text = loads("from cli.app import main; main()", tmp_path, "--help", forbidden=outside)
    assert "index" in text
    assert "search" in text


def test_nothing_watches(tmp_path: Path) -> None:
    """Indexing leaves anyseek's own files in the caches, and nobody's who would report."""
    photo = ROOT / "data" / "samples" / "photos" / "kitten-with-wool.jpg"
    main = "from cli.app import main; main()"
    loads(main, tmp_path, "index", str(photo), forbidden=TRAINING)
    folders = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert folders <= {"anyseek", "index.db.derived", ".cache", ".local", "share"}


def test_bundled_model_without_torch(tmp_path: Path) -> None:
    """Indexing pictures and texts, searching and comparing all do without torch."""
    main = "from cli.app import main; main()"
    photo = ROOT / "data" / "samples" / "photos" / "kitten-with-wool.jpg"
    text = ROOT / "data" / "samples" / "texts" / "bread-recipe.md"
    out = loads(main, tmp_path, "index", str(photo), str(text), forbidden=TRAINING)
    assert out.startswith("2 added")
    # a search in words needs the text tower only
    words = TRAINING | {"onnxruntime", "PIL", "pypdf"}
    out = loads(
        main,
        tmp_path,
        "search",
        "a kitten with a ball of wool",
        "--format",
        "paths",
        forbidden=words,
    )
    assert set(out.splitlines()) == {str(photo), str(text)}
