"""``anyseek evaluate``: measure models and prompts on data of one's own."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import prompts
from cli.options import Fusing, IndexOption, fuse_from, index_path
from retrieval.errors import EvaluationError
from retrieval.prompts import AUTO

if TYPE_CHECKING:
    from retrieval.evaluation.index_recall import IndexRecall
    from retrieval.fusion import Fuse


class Layout(StrEnum):
    """How figures are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


HITS = (1, 5, 10)  # as papers on CLIP report them
SAMPLE = 200  # queries for --index-recall: 99 of 100 then have two beyond them


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]",
            help="Folder with captions.tsv, captions.json, pairs.tsv, queries.tsv, qrels.txt or a "
            "folder for each class; or one of these files.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME", help="Model to measure; may be repeated.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Prompt set that words are put through; may be repeated.",
            show_default=AUTO,
        ),
    ] = None,
    prompt_file: prompts.FileOption = None,
    fuse: Annotated[
        list[Fusing] | None,
        typer.Option(
            "--fuse",
            help="Count words that belong to the files so, as in a search; may be repeated.",
            show_default="files alone",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            "-k",
            "--k",
            min=1,
            help="Look at so many hits; may be repeated.",
            show_default="1, 5, 10",
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            "--files",
            metavar="DIR",
            help="Folder that the names in DATA start from; that of DATA by default.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Only lines whose column `split` says this.",
            show_default=False,
        ),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Go on without files that are missing or damaged."),
    ] = False,
    index_recall: Annotated[
        bool,
        typer.Option("--index-recall", help="Measure the index instead, against an exact scan."),
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="With --index-recall: words to ask, one query a line; stored vectors by default.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="With --index-recall: ask so many queries.")
    ] = SAMPLE,
    format: Annotated[
        Layout, typer.Option("--format", help="A table, JSON, CSV, or one page of HTML.")
    ] = Layout.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write to this file.", show_default=False
        ),
    ] = None,
    cache: prompts.CacheOption = True,
    index: IndexOption = None,
) -> None:
    """Measure models and prompts on data of your own, with intervals and tests of differences."""
    if index_recall == (data is not None):
        raise typer.BadParameter("give DATA to measure on, or --index-recall, and not both")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise EvaluationError(f"cannot write a file at {output}; choose another place with -o")
    if index_recall:
        ks = k or [10]
        if format is Layout.HTML or len(ks) > 1:
            raise typer.BadParameter("--index-recall has no page of HTML, and takes one --k")
        found = _of_index(index_path(index), queries, sample, ks[0])
        _write(_index_text(found, format), output)
        return
    if queries is not None:
        raise typer.BadParameter("--queries belongs to --index-recall")
    assert data is not None
    from cli import figures, render
    from retrieval.evaluation.evaluate import evaluate as run
    from retrieval.evaluation.runs import Way
    from retrieval.evaluation.tasks import read
    from retrieval.models import model as find

    names = list(dict.fromkeys(prompt or [AUTO]))
    sets = {name: prompts.asked(name, (), prompt_file) for name in names}
    specs = {spec.name: spec for spec in map(find, model or [None])}  # type: ignore[list-item]
    fuses: list[Fuse | None] = [fuse_from(way, None) for way in dict.fromkeys(fuse or ())]
    ways = [
        Way(spec, name, sets[name], one)
        for spec in specs.values()
        for name in names
        for one in fuses or [None]
    ]
    found_tasks = read(data, files=files, split=split, skip_missing=skip_missing)
    with _progress() as report:
        results, remarks = run(
            found_tasks.tasks,
            ways,
            k or HITS,
            cache=prompts.cache_folder() if cache else None,
            skip_missing=skip_missing,
            report=report,
        )
    if found_tasks.missing:
        remarks.insert(0, f"left out {len(found_tasks.missing)} file(s) that are not there")
    for text in (*found_tasks.remarks, *remarks):
        render.remark(text)
    if format is Layout.HTML:
        from cli.evaluation_page import page

        _write(page(results), output)
    elif format is Layout.JSON:
        _write(json.dumps(figures.as_json(results), indent=2), output)
    elif format is Layout.CSV:
        _write(figures.as_csv(results), output)
    elif output is None and sys.stdout.isatty():
        figures.drawn(results)
    else:
        _write(figures.lines(results), output)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Tells a terminal how far the embedding is, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda stage, done, total: status.update(f"embedding {stage}: {done} of {total}")


def _write(text: str, output: Path | None) -> None:
    """Writes to stdout, or to a file that is then there whole or not at all."""
    text = text.rstrip("\n") + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    temporary = output.with_name(f".{output.name[:40]}-{secrets.token_hex(4)}.tmp")
    try:
        try:
            temporary.write_text(text, "utf-8", errors="backslashreplace")
            temporary.replace(output)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EvaluationError(
            f"cannot write {output}: {error.strerror}; choose another file with -o"
        ) from error


# ---- the index -----------------------------------------------------------------------------------


def _of_index(path: Path, queries: Path | None, sample: int, k: int) -> list[IndexRecall]:
    import numpy as np

    from retrieval.evaluation.features import Features
    from retrieval.evaluation.index_recall import measure, stored_queries
    from retrieval.evaluation.task_files import text_of
    from retrieval.evaluation.tasks import Thing
    from retrieval.search import usable_space
    from retrieval.store import Store
    from retrieval.types import Modality

    with Store(path) as store:
        spec, space = usable_space(store)
        asked: list[Thing] = []
        if queries is not None:
            lines = [" ".join(line.split()) for line in text_of(queries).splitlines()]
            texts = [line for line in dict.fromkeys(lines) if line]
            spread = np.linspace(0, len(texts) - 1, min(sample, len(texts))).round().astype(int)
            asked = [Thing(texts[at], Modality.TEXT) for at in spread.tolist()]
        features = Features(spec.load(), None, lambda stage, done, total: None)
        found = []
        for modality in store.modalities(space):
            if asked:
                rows = features.asked(asked, modality, None)
            else:
                rows = stored_queries(store, space, modality, sample)
            found.append(measure(store, space, modality, rows, k))
        return found


def _index_text(found: Sequence[IndexRecall], format: Layout) -> str:
    names = "kind vectors queries k recall low high p50_ms p95_ms p99_ms per_s".split()
    rows = [
        (
            one.modality.value,
            *(one.vectors, one.queries, one.k),
            *(round(value, 6) for value in (one.recall.value, one.recall.low, one.recall.high)),
            *(round(value, 3) for value in (one.p50_ms, one.p95_ms, one.p99_ms)),
            round(one.per_s, 1),
        )
        for one in found
    ]
    if format is Layout.JSON:
        return json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2)
    between = "," if format is Layout.CSV else "\t"
    return "\n".join(between.join(map(str, row)) for row in (names, *rows))
