"""What `anyseek evaluate` says of the bundled model; prints JSON.

    python -m tests.benchmarks.evaluate --data DIR --cache DIR

``--data`` holds ``flickr8k/captions.tsv`` and ``flickr8k/images/``, of which the split ``dev`` is
read, and ``esc50/esc50.csv`` (tab-separated: filename, fold, category) with ``esc50/audio/``, which
the model was trained on: its figures show the measure, not the model. ``--cache`` keeps vectors,
so that a second run embeds nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.figures import as_json
from retrieval.evaluation.evaluate import evaluate
from retrieval.evaluation.runs import Way
from retrieval.evaluation.tasks import Found, read
from retrieval.models import model
from retrieval.prompts import resolve
from tests.benchmarks.speed import machine


def measured(found: Found, prompts: Sequence[str], cache: Path) -> dict[str, Any]:
    """Measures, and gives the figures without the captions of what was missed."""
    spec = model()
    ways = [Way(spec, name, resolve(name)) for name in prompts]
    results, _ = evaluate(found.tasks, ways, [1, 5, 10], cache=cache)
    figures = as_json(results)
    for result in figures["results"]:
        for run in result["runs"]:
            for name in ("worst", "classes", "confusion"):
                run.pop(name, None)
    return figures


def by_class(folder: Path, table: Path, audio: Path) -> Path:
    """Makes a folder of links for each class of ESC-50."""
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            (folder / row["category"]).mkdir(exist_ok=True)
            (folder / row["category"] / row["filename"]).symlink_to(audio / row["filename"])
    return folder


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    flickr, esc50 = options.data / "flickr8k", options.data / "esc50"
    captions = read(flickr / "captions.tsv", files=flickr / "images", split="dev")
    report: dict[str, Any] = {
        "space": model().space,
        "machine": machine(),
        "flickr8k_dev": measured(captions, ["auto", "name"], options.cache),
    }
    with tempfile.TemporaryDirectory() as folder:
        classes = by_class(Path(folder).resolve(), esc50 / "esc50.csv", esc50 / "audio")
        report["esc50"] = measured(read(classes), ["auto", "plain", "sound"], options.cache)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
