"""What open_clip knows of architectures and published weights, read without importing it."""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError
from retrieval.towers.checkpoint import read_object
from retrieval.towers.clip_tokens import missing
from retrieval.towers.hub import PLAIN_NAME


def _package() -> Path:
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise missing()
    return Path(found.submodule_search_locations[0])


def architecture(name: str) -> dict[str, Any]:
    """Gives the description of an architecture that comes with open_clip.

    Raises:
        ModelError: If there is none of that name.
    """
    path = _package() / "model_configs" / f"{name}.json"
    if not PLAIN_NAME.fullmatch(name) or not path.is_file():
        raise ModelError(f"open_clip has no architecture {name!r}")
    return read_object(path)


def pretrained(arch: str) -> dict[str, dict[str, Any]]:
    """Gives the rows of open_clip's table of weights for an architecture, by tag."""
    return copy.deepcopy(_table().get(arch, {}))


@functools.cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    """Reads the table of weights from open_clip's source.

    Importing it would import torch. So only its assignments are run, with the small functions that
    they call; it is as trusted as the import that comes later.
    """
    names: dict[str, Any] = {"copy": copy}
    for module in ("constants", "pretrained"):
        tree = ast.parse((_package() / f"{module}.py").read_text("utf-8"))
        body: list[ast.stmt] = [
            node
            for node in tree.body
            if isinstance(node, ast.Assign | ast.For | ast.Expr)
            or (isinstance(node, ast.FunctionDef) and node.name.endswith("cfg"))
        ]
        code = compile(ast.Module(body, []), f"open_clip/{module}.py", "exec", dont_inherit=True)
        try:
            exec(code, names)
        except Exception as error:
            raise ModelError(f"this open_clip is not one that anyseek knows ({error})") from error
    table: dict[str, dict[str, dict[str, Any]]] = names["_PRETRAINED"]
    return table


def tag_of(tag: str) -> str:
    """Spells the name of weights as the table does."""
    return tag.lower().replace("-", "_")
