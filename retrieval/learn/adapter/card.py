"""Writes an adapter's folder: heads, ``model.toml``, and a card that people read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.calibrate import Calibration
from retrieval.learn import sense
from retrieval.learn.atomic import write_bytes, write_text
from retrieval.learn.export import toml
from retrieval.sense import Sense
from retrieval.towers import adapted
from retrieval.types import Modality

FIGURES = ("a", "b", "z", "n", "mean", "spread", "r")


def write(out: Path, heads: bytes, content: dict[str, Any], plane: Sense | None) -> dict[str, Any]:
    """Writes everything, ``model.toml`` last: a folder without it is no model yet.

    Args:
        out: The folder; made where it is missing.
        heads: Of ``heads.npz``.
        content: Of ``model.toml``.
        plane: Tells words from noise; ``None`` if the base has none.

    Returns:
        ``content`` as it was written.
    """
    content = _plain(content)
    (out / adapted.CARD).unlink(missing_ok=True)
    write_bytes(out / adapted.HEADS, heads)
    if plane is not None:
        sense.write(plane, out)
    write_text(out / "README.md", _readme(content))
    write_text(out / adapted.CARD, toml(content))
    adapted.card.cache_clear()
    return content


def table(
    calibrations: Mapping[tuple[Modality, Modality], Calibration],
) -> dict[str, dict[str, dict[str, float]]]:
    """Gives calibrations as ``model.toml`` has them."""
    made: dict[str, dict[str, dict[str, float]]] = {}
    for (query, target), one in calibrations.items():
        values = {name: float(getattr(one, name)) for name in FIGURES}
        made.setdefault(query.value, {})[target.value] = values
    return made


def _readme(content: Mapping[str, Any]) -> str:
    """Says in words what was learned, from what, and how well it does."""
    data, dev = content["data"], content["dev"]
    lines = [
        f"# {content['name']}",
        "",
        f"An adapter ({content['method']}) over {content['base']}, which stays as it is. "
        f"Vectors are of the space `{content['space']}`.",
        "",
        "| | |",
        "|---|---|",
        f"| learned from | {data['source']}: {data['files']} files, {data['classes']} classes |",
        f"| split | {data['train']} to learn, {data['dev']} to measure, {data['split']} |",
        f"| digest of the data | {data['digest']} |",
        f"| seed | {content['seed']} |",
        f"| share of what was learned | {content['share']} |",
        f"| licence | {content['licence']} |",
        "",
        "| validation split | base | before | after |",
        "|---|---|---|---|",
        *_rows(dev),
    ]
    if "keep" in content:
        title = f"| to be kept, by at most {content['keep']['margin']} points of r10 "
        lines += ["", f"{title}| base | before | after |", "|---|---|---|---|"]
        lines += _rows(content["keep"])
    if content.get("context"):
        lines += [
            "",
            f"Every text, of queries and of files, is read behind {content['context']} learned "
            "vectors. They stand where a prompt would: words are put as they are, unless prompts "
            'are asked for. "Before" is with the vectors that were begun with.',
        ]
    if not data["dev"]:
        lines += ["", "There was too little to keep a validation split: nothing was measured."]
    lines += ["", f"Made with `{content['command']}`.", ""]
    return "\n".join(lines)


def _rows(figures: Mapping[str, Any]) -> list[str]:
    names = figures["after"]
    return [
        f"| {name} | {figures['base'][name]} | {figures['before'][name]} | {names[name]} |"
        for name in names
    ]


def _plain(value: Any) -> Any:
    """Takes control characters out of texts: a name may have them, TOML may not."""
    if isinstance(value, str):
        return "".join(one if one.isprintable() else " " for one in value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
