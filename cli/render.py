"""What people and programs see: results on stdout, remarks and progress on stderr."""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.explain import Note
    from indexer.report import Progress, Report
    from indexer.scan import Skipped
    from retrieval.index import Device
    from retrieval.models import Listed
    from retrieval.search import Hit
    from retrieval.store import Summary

SHOWN_SPANS = 3  # of a recording; --format json has more
NAMED_FAILURES = 50  # more are counted; a run over a broken disk must not flood the terminal


def remark(text: str) -> None:
    """Says something that is not a result, in one line."""
    sys.stderr.write(f"anyseek: {printable(text)}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """Escapes what would not show as one line of text, and bytes that are not UTF-8."""
    return "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"  # how Python holds a byte that is no text
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shown(path: bytes) -> str:
    """Makes a path safe to show: relative where that is shorter, control characters escaped."""
    text = os.fsdecode(path)
    try:
        here = os.getcwd() + os.sep  # noqa: PTH109 (a plain prefix is meant)
    except FileNotFoundError:  # the shell stands in a folder that was removed
        return printable(text)
    return printable(text.removeprefix(here))


# ---- hits --------------------------------------------------------------------------------------


def hits(
    found: Sequence[Hit],
    format: str,
    remarks: Sequence[str],
    *,
    null: bool,
    notes: Sequence[Note] = (),
    confident: bool = True,
) -> None:
    """Writes hits, best first, each with its note if there are any; bare paths stay bare."""
    for text in (*remarks, *(note.remark for note in notes if note.remark)):
        remark(text)
    explained = dict(enumerate(notes))
    if format == "json":
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        for number, hit in enumerate(found):
            values = {**_fields(hit), "confident": confident}
            if number in explained:
                values["explanation"] = explained[number].fields
            plain = json.dumps(values, ensure_ascii=False, allow_nan=False)
            print(plain if utf8 and _is_text(plain) else json.dumps(values))
    elif format == "paths":
        sys.stdout.flush()
        end = b"\0" if null else b"\n"
        sys.stdout.buffer.write(b"".join(hit.path + end for hit in found))
        sys.stdout.buffer.flush()
    elif sys.stdout.isatty():
        _table(found, notes)
    else:
        for number, hit in enumerate(found):
            columns = (f"{hit.relevance:.2f}", hit.modality, shown(hit.path), _where(hit))
            print("\t".join(columns).rstrip())
            for line in explained[number].lines if number in explained else ():
                print(f"    {line}")
    if not found:
        remark("nothing in the index answers this")


def _fields(hit: Hit) -> dict[str, object]:
    details = hit.details
    return {
        "path": os.fsdecode(hit.path),
        "modality": hit.modality.value,
        "score": round(hit.score, 6),
        "relevance": round(hit.relevance, 4),
        "start_s": hit.place.start_s,
        "end_s": hit.place.end_s,
        "page": hit.place.page,
        "line": hit.place.line,
        "text": hit.place.text,
        "spans": [
            {
                "start_s": span.start_s,
                "end_s": span.end_s,
                "relevance": round(span.relevance, 4),
            }
            for span in hit.spans
        ],
        "words": None if hit.words is None else hit.words.text,
        "sources": {source.value: round(value, 4) for source, value in hit.sources.items()},
        "space": hit.space,
        "date": None if details.date is None else details.date.isoformat(timespec="seconds"),
        "taken_at": details.facts.taken_at,
        "camera": details.facts.camera,
        "lat": details.facts.lat,
        "lon": details.facts.lon,
        "width": details.width,
        "height": details.height,
        "duration_s": details.duration_s,
    }


def _is_text(text: str) -> bool:
    """Tells whether all of it can be written as UTF-8; names that are none cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _where(hit: Hit) -> str:
    parts = []
    if hit.place.page is not None:
        parts.append(f"page {hit.place.page}")
    elif hit.place.line is not None:
        parts.append(f"line {hit.place.line}")
    if hit.spans:
        shown_spans = [f"{clock(span.start_s)}-{clock(span.end_s)}" for span in hit.spans]
        more = ", …" if len(shown_spans) > SHOWN_SPANS else ""
        parts.append(", ".join(shown_spans[:SHOWN_SPANS]) + more)
    elif hit.place.start_s is not None and hit.place.end_s is not None:
        parts.append(f"{clock(hit.place.start_s)}-{clock(hit.place.end_s)}")
    if hit.place.text is not None:
        text = printable(" ".join(hit.place.text.split()))
        parts.append(text if len(text) <= 80 else text[:79] + "…")
    if hit.words is not None:
        text = printable(hit.words.text)
        parts.append(f"{hit.words.source}: {text if len(text) <= 80 else text[:79] + '…'}")
    return ": ".join(parts)


def clock(seconds: float) -> str:
    """Writes a place in a recording as players do: 1:05, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _table(found: Sequence[Hit], notes: Sequence[Note]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("relevance", justify="right")
    table.add_column("kind")
    table.add_column("file", overflow="fold")
    if any(_where(hit) for hit in found):
        table.add_column("where", style="dim")
    for number, hit in enumerate(found):
        path = Text(shown(hit.path))
        path.stylize(f"link {Path(os.fsdecode(hit.path)).as_uri()}")
        row = [f"{hit.relevance:.2f}", hit.modality.value, path, Text(_where(hit))]
        table.add_row(*row[: len(table.columns)])
        if number < len(notes):
            table.add_row("", "", Text("\n".join(notes[number].lines), style="dim"))
    if found:
        Console().print(table)


# ---- indexing ----------------------------------------------------------------------------------


@contextmanager
def progress() -> Iterator[Progress]:
    """Shows a bar with rate and remaining time on a terminal, and nothing elsewhere."""
    from indexer.report import Progress

    if not sys.stderr.isatty():
        yield Progress(sealing=lambda what, _, total: None if total else remark(what))
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("indexing", total=None, visible=False)

        def total(count: int) -> None:
            bar.update(task, total=count, visible=True)

        def advance(count: int) -> None:
            bar.advance(task, count)

        lists = bar.add_task("lists", total=None, visible=False)

        def sealing(what: str, done: int, count: int) -> None:
            if count:
                shown = done < count
                bar.update(lists, description=what, completed=done, total=count, visible=shown)
            else:
                remark(what)

        yield Progress(total, advance, sealing)


@contextmanager
def steps(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar for what is told as done and total on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def report(done: Report, *, model: str | None = None, named: Collection[Skipped] = ()) -> None:
    """Writes the counts of a run, and names what failed.

    Args:
        done: The run.
        model: Said before the counts, where there are several runs.
        named: What an earlier run named already.
    """
    failed = [skipped for skipped in done.failed if skipped not in named]
    for skipped in failed[:NAMED_FAILURES]:
        remark(f"skipped {shown(skipped.path)}: {skipped.reason}")
    if len(failed) > NAMED_FAILURES:
        remark(f"and {len(failed) - NAMED_FAILURES} more that could not be used")
    for text in done.remarks:
        remark(text)
    counts = ", ".join(
        f"{count} {name}"
        for name, count in (
            ("added", done.added),
            ("updated", done.updated),
            ("renamed", done.renamed),
            ("removed", done.removed),
            ("unchanged", done.unchanged),
            ("failed", len(done.failed)),
        )
    )
    before = f"{printable(model)}: " if model else ""
    print(f"{before}{counts} in {done.seconds:.1f} s")
    seen = (done.added, done.updated, done.renamed, done.unchanged, done.failed)
    if done.left_out and not any(seen):
        remark(f"{done.left_out} file(s) there are of kinds that the model does not embed")
    elif not any(seen) and not done.interrupted:
        remark(
            "found nothing to index there: anyseek reads pictures (JPEG, PNG, WebP, GIF, BMP, "
            "TIFF, AVIF, HEIC), sounds (WAV, FLAC, OGG, Opus, MP3, AIFF; with 'anyseek[av]' M4A, "
            "AAC, WMA and videos) and texts (txt, md, rst, html, pdf)"
        )


# ---- status and models -------------------------------------------------------------------------


def status(
    path: Path, summary: Summary, device: Device, missing: Mapping[str, str] | None = None
) -> None:
    """Writes what the index holds.

    Args:
        path: Of the index.
        summary: Counts.
        device: Where vectors are compared.
        missing: Why a space's model cannot be used, by the name of the space.
    """
    lines = [f"index         {printable(str(path))}"]
    for modality, count in summary.items.items():
        parts = summary.parts.get(modality, 0)
        more = f" in {parts} parts" if parts != count else ""
        lines.append(f"{modality.value:<13} {count} items{more}")
    for space in summary.spaces:
        counts = ", ".join(
            f"{count} {modality.value}"
            for (name, modality), count in summary.vectors.items()
            if name == space.name
        )
        lines.append(f"space         {space.name} ({space.dim} dimensions): {counts or 'empty'}")
        lacking = ", ".join(
            f"{summary.items.get(modality, 0) - count} {modality.value}"
            for (name, modality), count in summary.embedded.items()
            if name == space.name and count < summary.items.get(modality, 0)
        )
        if lacking:
            lines.append(f"              without vectors yet: {lacking}; run `anyseek index` again")
        if missing and space.name in missing:
            lines.append(f"              {printable(missing[space.name])}")
    lines.append(f"on disk       {size(_disk(path))}")
    if summary.last_indexed_s is not None:
        when = datetime.fromtimestamp(summary.last_indexed_s, UTC).astimezone()
        lines.append(f"last indexed  {when:%Y-%m-%d %H:%M:%S}")
    lines.append(f"compared on   {device.name}: {device.reason}")
    lines.append(f"next          {_next(summary, missing or {})}")
    print("\n".join(lines))


def _next(summary: Summary, missing: Collection[str]) -> str:
    if not summary.items:
        return "anyseek index FOLDER"
    filled = {space for (space, _), count in summary.vectors.items() if count}
    if filled and filled <= {*missing}:
        return "anyseek similar FILE, for a file that is indexed; words need the model"
    return 'anyseek search "a dog at the sea"'


MODEL_HEADINGS = ("name", "embeds", "dim", "size", "licence", "here", "quality", "about")


def model_columns(row: Listed) -> tuple[str, ...]:
    """Gives the cells of a model's row, in the order of ``MODEL_HEADINGS``."""
    return (
        row.name,
        ", ".join(row.modalities),
        str(row.dim),
        size(row.size_bytes),
        row.licence,
        "yes" if row.here else "no",
        row.quality,
        row.about,
    )


def models(rows: Sequence[Listed], *, as_json: bool = False) -> None:
    """Writes the table of models, the default first."""
    if as_json:
        for row in rows:
            fields = dataclasses.asdict(row) | {"modalities": [str(one) for one in row.modalities]}
            print(json.dumps(fields))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in MODEL_HEADINGS:
            table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "size", "here"))
        for row in rows:
            table.add_row(*map(Text, model_columns(row)))
        Console().print(table)
    else:
        for row in rows:
            print("\t".join(model_columns(row)))


@contextmanager
def fetching() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar of bytes on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    with Bar(
        TextColumn("fetching"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("fetching", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _disk(path: Path) -> int:
    from retrieval.index import folder_of

    files = [path, path.with_name(path.name + "-wal")]
    folder = folder_of(path)
    if folder.is_dir():
        files.extend(folder.iterdir())
    return sum(file.stat().st_size for file in files if file.exists())


def size(count: float) -> str:
    """Writes a number of bytes in the unit that it needs."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
