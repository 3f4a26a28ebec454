"""``anyseek classify``: what files are, out of given labels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import prompts
from cli.options import IndexOption, NullOption, index_path
from cli.stopping import stoppable
from retrieval.errors import QueryError
from retrieval.types import Modality

if TYPE_CHECKING:
    from cli.verdicts import Classified
    from indexer.scan import Skipped
    from indexer.sidecars import Kind
    from indexer.sorting import Way
    from retrieval.classify import Classifier
    from retrieval.labels import LabelSet
    from retrieval.prompts import PromptSet


class In(StrEnum):
    """Which files of folders are looked at."""

    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"
    ALL = "all"


class Format(StrEnum):
    """How verdicts are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PATHS = "paths"


class Sidecar(StrEnum):
    """What is written beside files; see ``indexer.sidecars.Kind``."""

    XMP = "xmp"
    JSON = "json"


def classify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...", help="Folders or files, indexed or not.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="LABELS", help="Labels: cat,dog,horse.", show_default=False),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with a label on each line, and after tabs other wordings.",
            show_default=False,
        ),
    ] = None,
    label_set: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Labels that come with anyseek.", show_default=False),
    ] = None,
    language: Annotated[
        str, typer.Option(metavar="LANG", help="Language of --label-set: en or zh.")
    ] = "en",
    list_sets: Annotated[
        bool, typer.Option("--list-sets", help="List the label sets, and stop.")
    ] = False,
    kind: Annotated[In, typer.Option("--in", help="Which kind of files.")] = In.ALL,
    k: Annotated[int, typer.Option("-k", help="How many labels of each file.")] = 1,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Say `unknown` where no label fits.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Only files whose best label is this.", show_default=False
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="A table, JSON lines, CSV, or bare paths.")
    ] = Format.TABLE,
    null: NullOption = False,
    prompt: prompts.NameOption = "auto",
    prompt_file: prompts.FileOption = None,
    write_tags: Annotated[
        bool, typer.Option("--write-tags", help="Keep the labels as tags in the index.")
    ] = False,
    sidecar: Annotated[
        Sidecar | None,
        typer.Option(help="Write the labels beside each file.", show_default=False),
    ] = None,
    move: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Move files to DIR/LABEL; shows the plan.", show_default=False
        ),
    ] = None,
    copy: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The same, but copy.", show_default=False),
    ] = None,
    symlink: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The same, but link.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do what the plan says.")] = False,
    index: IndexOption = None,
) -> None:
    """Tell what files are, out of labels, with probabilities."""
    from cli import render, verdicts

    if list_sets:
        _list_sets(language)
        return
    way, folder = _way(move, copy, symlink)
    if yes and dry_run:
        raise QueryError("--yes and --dry-run contradict each other; give one of them")
    if yes and way is None:
        raise QueryError("--yes is for --move, --copy and --symlink; give one with it")
    given = _labels(labels, labels_file, label_set, language)
    if only is not None and only not in [*(one.name for one in given.labels), verdicts.UNKNOWN]:
        raise QueryError(f"{only!r} is none of the labels; --only takes one of them")
    if not paths:
        raise QueryError("there is nothing to classify; name folders or files")
    chosen = prompts.asked(prompt, (), prompt_file)
    found: list[Classified] = []

    def kept() -> Iterator[Classified]:
        skipped = 0
        for one in _classified(paths, given, chosen, kind, k, unknown=unknown, index=index):
            if not isinstance(one, verdicts.Classified):
                skipped += 1
                if skipped <= render.NAMED_FAILURES:
                    render.remark(f"skipped {render.shown(one.path)}: {one.reason}")
            elif only is None or one.shown_label == only:
                found.append(one)
                yield one
        if skipped > render.NAMED_FAILURES:
            render.remark(f"and {skipped - render.NAMED_FAILURES} more that could not be used")

    shown = None if way is not None else format.value
    stage = "nothing was written: run the same command again"
    with stoppable(lambda: stage):
        verdicts.write(kept(), shown, null=null)
        if not found:
            render.remark("nothing there could be classified so")
            return
        if sidecar is not None and not dry_run:
            from indexer.sidecars import Kind

            stage = "sidecars that are written are whole: run the same command for the others"
            _write_sidecars(found, Kind(sidecar.value))
        if write_tags and not dry_run:
            stage = "all tags are kept, or none: run the same command again"
            _write_tags(found, given, index_path(index))
        if way is not None and folder is not None:
            stage = _after_stop(way.value, really=yes)
            _sort(found, folder, way, really=yes)


def _after_stop(way: str, *, really: bool) -> str:
    if not really:
        return "this was the plan alone, and nothing was changed"
    if way == "move":
        return "what was moved stays so: run the same command for the others"
    return f"what was done stays; the same command would {way} it once more"


def _list_sets(language: str) -> None:
    from cli.render import printable
    from retrieval import labels

    for name in labels.names():
        one = labels.bundled(name, language)
        shown = ", ".join(label.name for label in one.labels)
        print("\t".join((name, ", ".join(one.modalities), one.about, printable(shown))))


def _way(
    move: Path | None, copy: Path | None, symlink: Path | None
) -> tuple[Way | None, Path | None]:
    from indexer.sorting import Way

    asked = {Way.MOVE: move, Way.COPY: copy, Way.SYMLINK: symlink}
    ways = [(way, folder) for way, folder in asked.items() if folder is not None]
    if len(ways) > 1:
        raise QueryError("--move, --copy and --symlink exclude each other; give one of them")
    return ways[0] if ways else (None, None)


def _labels(typed: str | None, file: Path | None, name: str | None, language: str) -> LabelSet:
    from retrieval import labels

    if sum(one is not None for one in (typed, file, name)) != 1:
        raise QueryError(
            "say what there is with one of --labels cat,dog, --labels-file FILE, --label-set NAME"
        )
    if typed is not None:
        return labels.typed(typed)
    if file is not None:
        return labels.read(file)
    assert name is not None
    return labels.bundled(name, language)


def _classified(
    paths: list[Path],
    labels: LabelSet,
    prompt: PromptSet | None,
    kind: In,
    k: int,
    *,
    unknown: bool,
    index: Path | None,
) -> Iterator[Classified | Skipped]:
    """Gives what each file is; files that the index has are not read."""
    from cli import render, verdicts
    from indexer.scan import Skipped, roots_of
    from indexer.vectors import vectors_of
    from retrieval.classify import Classifier
    from retrieval.models import model
    from retrieval.search import usable_space
    from retrieval.store import Store

    for path in paths:
        if not os.path.lexists(path):
            raise QueryError(f"there is no file or folder at {path}")
    wanted = [*Modality] if kind is In.ALL else [Modality(kind.value)]
    modalities = [modality for modality in wanted if modality in labels.modalities]
    if not modalities:
        raise QueryError(f"the labels {labels.name!r} are for {', '.join(labels.modalities)}")
    with ExitStack() as stack:
        store, space = None, None
        target = index_path(index)
        if target.exists():
            store = stack.enter_context(Store(target))
            spec, space = usable_space(store)
        else:
            spec = model()
        encoder = spec.load()
        classifier: Classifier = Classifier(encoder, labels, prompt=prompt)
        if not classifier.measured:
            render.remark(
                f"the probabilities of {spec.name} are not calibrated; "
                "those of the bundled model are"
            )
        for one in vectors_of(
            roots_of(paths), encoder, store=store, space=space, modalities=modalities
        ):
            if isinstance(one, Skipped):
                yield one
                continue
            (verdict,) = classifier.judge(one.vector, one.file.modality, k=k)
            yield verdicts.Classified(
                one.file.path,
                one.file.modality,
                verdict,
                one.item_id,
                unknown=unknown and not verdict.known,
            )


def _write_sidecars(found: list[Classified], kind: Kind) -> None:
    from cli import render
    from indexer import sidecars
    from retrieval.errors import MediaError, StorageError

    written = 0
    failed = False
    for one in found:
        labels = () if one.unknown else one.verdict.labels
        try:
            sidecars.write(Path(os.fsdecode(one.path)), labels, kind)
            written += 1
        except MediaError as error:
            render.remark(f"skipped {render.shown(one.path)}: it {error}")
            failed |= isinstance(error.__cause__, OSError)
    told = f"wrote {written} sidecar{'s' if written != 1 else ''}"
    if failed:
        raise StorageError(f"{told}; the disk did not let the others be written, as said above")
    render.remark(told)


def _write_tags(found: list[Classified], labels: LabelSet, path: Path) -> None:
    from cli import render
    from indexer.lock import exclusive
    from retrieval.store import Store, Tag

    source = f"classify:{labels.name}"
    given = {
        one.item_id: [] if one.unknown else [Tag(*pair) for pair in one.verdict.labels]
        for one in found
        if one.item_id is not None
    }
    if not given:
        raise QueryError(
            "tags are kept for files that the index has as they are now, and none of these is; "
            "run `anyseek index` on them first"
        )
    with (
        exclusive(path, on_wait=lambda: render.remark(f"waiting for another process on {path}")),
        Store(path, write=True) as store,
    ):
        count = store.put_tags(source, given)
    missing = len(found) - len(given)
    more = f"; {missing} files are not in the index as they are now" if missing else ""
    render.remark(f"kept {count} tags of {len(given)} files{more}")


def _sort(found: list[Classified], folder: Path, way: Way, *, really: bool) -> None:
    from cli import render
    from indexer.sorting import Refused, carry_out, plan

    files = [(Path(os.fsdecode(one.path)), one.shown_label) for one in found]
    done = in_place = 0
    for step in plan(files, folder, way):
        if step is None:
            in_place += 1
        elif isinstance(step, Refused):
            render.remark(f"skipped {render.shown(os.fsencode(step.source))}: it {step.reason}")
        else:
            if really:
                carry_out(step)
            done += 1
            shown = (render.shown(os.fsencode(path)) for path in (step.source, step.target))
            print("\t".join((way.value, *shown)))
    sys.stdout.flush()
    rest = f"; {in_place} in place already" if in_place else ""
    if really:
        more = "; run `anyseek index` to tell the index" if way.value == "move" else ""
        render.remark(f"done: {way.value} of {done} files{rest}{more}")
    else:
        render.remark(f"this is the plan for {done} files{rest}; --yes carries it out")
