"""Walking real folders, and comparing them with what an index knows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.scan import (
    Changed,
    Difference,
    File,
    New,
    Skipped,
    Unchanged,
    Vanished,
    compare,
    roots_of,
    walk,
)
from retrieval.store import Known
from retrieval.types import Fingerprint, Modality

NOBODY = 65534


def make(root: Path, *names: str | bytes, content: bytes = b"x") -> None:
    """Writes files below a folder, with the folders that they need."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))  # noqa: PTH118 (bytes)
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (bytes)
        with open(path, "wb") as file:  # noqa: PTH123 (bytes)
            file.write(content)


def below(root: Path, entries: Iterator[File | Skipped]) -> list[bytes]:
    """Gives the paths relative to the root, in the order of the walk."""
    prefix = os.fsencode(root) + b"/"
    return [entry.path.removeprefix(prefix) for entry in entries]


def walked(root: Path) -> list[bytes]:
    """Walks a folder in which nothing is skipped."""
    entries = list(walk(os.fsencode(root)))
    assert [entry for entry in entries if isinstance(entry, Skipped)] == []
    return below(root, iter(entries))


@pytest.fixture
def without_rights() -> Iterator[Path]:
    """Gives a folder, and takes the superuser's right to read everything where we have it."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="anyseek-")))
    folder.chmod(0o777)
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(was)
        for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            path.chmod(0o700)
        shutil.rmtree(folder)


# ---- walk --------------------------------------------------------------------------------------


def test_walk_order(tmp_path: Path) -> None:
    """Files come in bytewise order of their full paths, names without UTF-8 included."""
    expected = [
        b"A.jpg",
        b"a b.jpg",
        b"a-b/x.jpg",  # "-" stands before "." and "/", so before "a.jpg" and all below "a"
        b"a.b/z.jpg",
        b"a.jpg",
        b"a/b.jpg",
        b"a/b/c.jpg",
        b"a0.jpg",
        b"a\x80/q.jpg",  # no UTF-8
        "ä.jpg".encode(),
        "日.jpg".encode(),
        b"\xff\xfe.jpg",
    ]
    make(tmp_path, *reversed(expected), "a/no suffix", "b.zip", "jpg")
    assert walked(tmp_path) == expected
    full = [os.fsencode(tmp_path) + b"/" + name for name in expected]
    assert full == sorted(full)


def test_walk_fingerprints(tmp_path: Path) -> None:
    """A file carries its size, its time to the nanosecond, and the modality of its suffix."""
    make(tmp_path, "b.TXT", content=b"12345")
    make(tmp_path, "a.JpG", content=b"123")
    os.utime(tmp_path / "a.JpG", ns=(5, 1_234_567_890_123_456_789))
    os.utime(tmp_path / "b.TXT", ns=(5, -1))  # before 1970
    root = os.fsencode(tmp_path)
    assert list(walk(root)) == [
        File(root + b"/a.JpG", Fingerprint(3, 1_234_567_890_123_456_789), Modality.IMAGE),
        File(root + b"/b.TXT", Fingerprint(5, -1), Modality.TEXT),
    ]


def test_walk_leaves_out(tmp_path: Path) -> None:
    """Hidden files and those of programs are passed over at every depth, similar names are not."""
    make(
        tmp_path,
        ".hidden.jpg",
        "._x.jpg",
        ".hidden/a.jpg",
        ".git/a.txt",
        "@eaDir/a.jpg",
        "node_modules/a.md",
        "__pycache__/a.txt",
        "deep/down/@eaDir/a.jpg",
        "deep/down/._a.jpg",
        "deep/node_modules/x/y.jpg",
    )
    make(
        tmp_path, "x.jpg", "eaDir/a.jpg", "node_modules2/a.md", "deep/down/a.jpg", "a.node_modules"
    )
    assert walked(tmp_path) == [b"deep/down/a.jpg", b"eaDir/a.jpg", b"node_modules2/a.md", b"x.jpg"]


def test_walk_named_root(tmp_path: Path) -> None:
    """A root counts even if its name would be left out below another root."""
    make(tmp_path, ".hidden/@eaDir/a.jpg", ".hidden/b.jpg", ".c.jpg")
    assert walked(tmp_path / ".hidden") == [b"b.jpg"]
    assert walked(tmp_path / ".hidden" / "@eaDir") == [b"a.jpg"]
    (only,) = walk(os.fsencode(tmp_path / ".c.jpg"))
    assert isinstance(only, File)
    assert only.path == os.fsencode(tmp_path / ".c.jpg")


def test_walk_link_loops(tmp_path: Path) -> None:
    """Links to folders are not followed, so loops end and nothing comes twice."""
    make(tmp_path, "a/x.jpg", "elsewhere/y.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "folder.jpg").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert walked(tmp_path) == [b"a/x.jpg", b"elsewhere/y.jpg"]


def test_walk_links_to_files(tmp_path: Path) -> None:
    """A link to a file counts, with the fingerprint of what it leads to."""
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"12345")
    os.utime(outside, ns=(7, 7))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.jpg").symlink_to(outside)
    assert list(walk(os.fsencode(root))) == [
        File(os.fsencode(root / "link.jpg"), Fingerprint(5, 7), Modality.IMAGE)
    ]


def test_walk_broken_links(tmp_path: Path) -> None:
    """Broken links and links to themselves are reported, if their name is a picture's."""
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "not ours").symlink_to("nowhere")
    gone, loop = walk(os.fsencode(tmp_path))
    assert gone == Skipped(os.fsencode(tmp_path / "gone.jpg"), "is a broken link")
    assert isinstance(loop, Skipped)
    assert loop.reason.startswith("cannot be opened: ")
    assert not loop.folder


def test_walk_closed_folder(
    without_rights: Path,
) -> None:
    """A folder without permission is reported and the walk goes on behind it."""
    make(without_rights, "a/x.jpg", "closed/y.jpg", "z.jpg")
    (without_rights / "closed").chmod(0)
    root = os.fsencode(without_rights)
    entries = list(walk(root))
    assert below(without_rights, iter(entries)) == [b"a/x.jpg", b"closed", b"z.jpg"]
    assert entries[1] == Skipped(root + b"/closed", "no permission to open this folder", True)


def test_walk_closed_root(without_rights: Path) -> None:
    """A root without permission is reported as a folder."""
    make(without_rights, "root/x.jpg")
    (without_rights / "root").chmod(0)
    root = os.fsencode(without_rights / "root")
    assert list(walk(root)) == [Skipped(root, "no permission to open this folder", True)]


def test_walk_folder_without_entry(without_rights: Path) -> None:
    """Files in a folder that may be listed but not entered are reported one by one."""
    make(without_rights, "listed/x.jpg")
    (without_rights / "listed").chmod(0o400)
    path = os.fsencode(without_rights / "listed" / "x.jpg")
    assert list(walk(os.fsencode(without_rights))) == [Skipped(path, "no permission to read it")]


def test_walk_pipes(tmp_path: Path) -> None:
    """Pipes and folders with a picture's name are no pictures."""
    os.mkfifo(tmp_path / "pipe.jpg")
    make(tmp_path, "album.jpg/inside.jpg")
    assert walked(tmp_path) == [b"album.jpg/inside.jpg"]
    assert list(walk(os.fsencode(tmp_path / "pipe.jpg"))) == []


def test_walk_file_as_root(tmp_path: Path) -> None:
    """A root may be a file; one that nobody can read is reported."""
    make(tmp_path, "a.jpg", "b.zip")
    picture, archive = os.fsencode(tmp_path / "a.jpg"), os.fsencode(tmp_path / "b.zip")
    (file,) = walk(picture)
    assert isinstance(file, File)
    assert (file.path, file.modality) == (picture, Modality.IMAGE)
    assert list(walk(archive)) == [Skipped(archive, "is no kind of file that anyseek reads")]


def test_walk_vanishing(tmp_path: Path) -> None:
    """What vanishes between listing and looking is reported."""
    make(tmp_path, "a.jpg", "b.jpg", "c/d.jpg")
    walk_on = walk(os.fsencode(tmp_path))
    next(walk_on)
    (tmp_path / "b.jpg").unlink()
    shutil.rmtree(tmp_path / "c")
    assert list(walk_on) == [
        Skipped(os.fsencode(tmp_path / "b.jpg"), "vanished"),
        Skipped(os.fsencode(tmp_path / "c"), "vanished", True),
    ]


def test_walk_empty_folder(tmp_path: Path) -> None:
    """An empty folder gives nothing."""
    assert list(walk(os.fsencode(tmp_path))) == []


def test_walk_deep_tree(tmp_path: Path) -> None:
    """Six hundred folders in one another do not exhaust the stack or the open files."""
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(600):  # below the system's limit on the length of a path
            os.mkdir("d", dir_fd=here)
            there = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = there
        os.close(os.open("x.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    assert walked(tmp_path) == [b"d/" * 600 + b"x.jpg"]


# ---- roots_of ----------------------------------------------------------------------------------


def test_roots_overlap(tmp_path: Path) -> None:
    """Roots below other roots are dropped, similar names are not."""
    make(tmp_path, "a/b/c.jpg", "a-b/x.jpg", "ab/y.jpg", "a.jpg")
    root = os.fsencode(tmp_path)
    paths = [tmp_path / name for name in ("a/b/c.jpg", "a", "a/b", "ab", "a.jpg", "a-b", "a")]
    assert roots_of(paths) == [root + name for name in (b"/a-b", b"/a.jpg", b"/a", b"/ab")]
    assert roots_of([*paths, tmp_path]) == [root]
    assert roots_of([Path("/"), tmp_path]) == [b"/"]
    assert roots_of([]) == []
    hidden = tmp_path / ".photos"
    hidden.mkdir()
    assert roots_of([tmp_path, hidden, hidden / "a"]) == [root, os.fsencode(hidden)]


def test_roots_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots are absolute, without links and dots, as bytes."""
    make(tmp_path, "a/b/c.jpg", b"a/\xff/d.jpg")
    (tmp_path / "link").symlink_to("a", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "a")
    root = os.fsencode(tmp_path.resolve())
    assert roots_of([Path(), Path("b/.."), Path("../link/b")]) == [root + b"/a"]
    assert roots_of([Path("b/./c.jpg")]) == [root + b"/a/b/c.jpg"]
    assert roots_of([Path(os.fsdecode(b"\xff"))]) == [root + b"/a/\xff"]


def test_roots_of_a_link_to_itself(tmp_path: Path) -> None:
    """A link to itself is a root like any other, and reported when it is walked."""
    link = tmp_path / "loop.jpg"
    link.symlink_to("loop.jpg")
    (root,) = roots_of([link])
    assert root == os.fsencode(link)
    (skipped,) = walk(root)
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith("cannot be opened: ")


@given(st.lists(st.lists(st.sampled_from(["a", "a-", "a.", "b", "a0"]), max_size=3), max_size=6))
def test_roots_cover(names: list[list[str]]) -> None:
    """Every path lies below exactly one root; roots stand in the order of their contents."""
    base = Path("/nowhere of mine")
    paths = [base.joinpath(*parts) for parts in names]
    roots = roots_of(paths)
    for path in paths:
        above = {os.fsencode(path), *(os.fsencode(parent) for parent in path.parents)}
        assert len(above & set(roots)) == 1
    assert roots == [
        os.fsencode(path) for path in sorted(map(os.fsdecode, roots), key=lambda p: p + "/")
    ]


# ---- compare -----------------------------------------------------------------------------------


ROOT = b"/r"


def known(path: bytes, mtime_ns: int = 1, *, complete: bool = True, id: int = 1) -> Known:
    """Makes an item of one byte."""
    return Known(id, path, Fingerprint(1, mtime_ns), complete)


def file(path: bytes, mtime_ns: int = 1) -> File:
    """Makes a file of one byte."""
    return File(path, Fingerprint(1, mtime_ns), Modality.IMAGE)


def test_compare_kinds() -> None:
    """New, changed, unchanged, vanished, and an item without vectors, which counts as changed."""
    items = [
        known(b"/r/a", id=1),
        known(b"/r/b", id=2),
        known(b"/r/c", complete=False, id=3),
        known(b"/r/e", id=4),
    ]
    found = [file(b"/r/a"), file(b"/r/b", 2), file(b"/r/c"), file(b"/r/d")]
    assert list(compare(ROOT, found, items)) == [
        Unchanged(items[0]),
        Changed(found[1], items[1]),
        Changed(found[2], items[2]),
        New(found[3]),
        Vanished(items[3]),
    ]


def test_compare_passes_over_what_the_walk_does() -> None:
    """Items from a hidden folder that was indexed by name stay, when the folder above is walked."""
    items = [known(b"/r/.photos/a"), known(b"/r/b/@eaDir/c"), known(b"/r/d")]
    assert list(compare(ROOT, [], items)) == [Vanished(items[2])]
    assert list(compare(b"/r/.photos", [], items[:1])) == [Vanished(items[0])]


def test_compare_fingerprints() -> None:
    """Size alone and time alone make a change, also towards the past."""
    item = known(b"/r/a")
    for fingerprint in (Fingerprint(2, 1), Fingerprint(1, 0)):
        other = File(b"/r/a", fingerprint, Modality.IMAGE)
        assert list(compare(ROOT, [other], [item])) == [Changed(other, item)]


def test_compare_closed_folder() -> None:
    """Items below a closed folder are kept, and only those."""
    items = [
        known(b"/r/a", id=1),
        known(b"/r/closed", id=2),  # a file before, a folder now
        known(b"/r/closed-not/x", id=3),
        known(b"/r/closed.jpg", id=4),
        known(b"/r/closed/x", id=5),
        known(b"/r/closed/y/z", id=6),
        known(b"/r/closed0", id=7),
        known(b"/r/z", id=8),
    ]
    closed = Skipped(b"/r/closed", "no permission", folder=True)
    found: list[File | Skipped]
    found = [file(b"/r/a"), file(b"/r/closed.jpg"), closed, file(b"/r/z")]
    assert list(compare(ROOT, found, items)) == [
        Unchanged(items[0]),
        Vanished(items[1]),
        Vanished(items[2]),
        Unchanged(items[3]),
        closed,
        Unchanged(items[4]),
        Unchanged(items[5]),
        Vanished(items[6]),
        Unchanged(items[7]),
    ]


def test_compare_closed_root() -> None:
    """A closed root keeps everything."""
    items = [known(b"/r/a", id=1), known(b"/r/b/c", id=2)]
    closed = Skipped(b"/r", "no permission", folder=True)
    assert list(compare(ROOT, [closed], items)) == [
        closed,
        Unchanged(items[0]),
        Unchanged(items[1]),
    ]


def test_compare_unreadable_file() -> None:
    """A file that cannot be looked at keeps its item, and nothing else does."""
    items = [known(b"/r/a", id=1), known(b"/r/b", id=2), known(b"/r/b/c", id=3)]
    skipped = Skipped(b"/r/b", "no permission")
    assert list(compare(ROOT, [skipped], items)) == [
        Vanished(items[0]),
        Unchanged(items[1]),
        skipped,
        Vanished(items[2]),
    ]


NAMES = st.sampled_from([b"a", b"a-", b"a.", b"a0", b"b", b"\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: b"/r/" + b"/".join(names))


def is_below(path: bytes, folder: bytes) -> bool:
    """Tells whether a path lies in a folder, at any depth."""
    return path.startswith(folder + b"/")


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(PATHS, st.sampled_from(["file", "newer", "unreadable", "closed"]), max_size=12),
    st.dictionaries(PATHS, st.booleans(), max_size=12),
)
def test_compare_property(tree: dict[bytes, str], complete: dict[bytes, bool]) -> None:
    """Any tree against any index agrees with plain set arithmetic."""
    # what stands below a file or a closed folder cannot be seen
    tree = {path: kind for path, kind in tree.items() if not any(is_below(path, p) for p in tree)}
    items = {
        path: Known(id, path, Fingerprint(1, 1), complete[path])
        for id, path in enumerate(sorted(complete))
    }
    found: dict[bytes, File | Skipped] = {}
    for path, kind in tree.items():
        match kind:
            case "file":
                found[path] = file(path, 1)
            case "newer":
                found[path] = file(path, 2)
            case "unreadable":
                found[path] = Skipped(path, "no permission")
            case "closed":
                found[path] = Skipped(path, "no permission", folder=True)

    def place(entry: File | Skipped) -> bytes:
        return entry.path + b"/" if isinstance(entry, Skipped) and entry.folder else entry.path

    closed = {path for path, kind in tree.items() if kind == "closed"}
    expected: list[Difference] = [entry for entry in found.values() if isinstance(entry, Skipped)]
    for path in found.keys() | items.keys():
        entry, item = found.get(path), items.get(path)
        if isinstance(entry, File):
            if item is None:
                expected.append(New(entry))
            elif tree[path] == "newer" or not item.complete:
                expected.append(Changed(entry, item))
            else:
                expected.append(Unchanged(item))
        elif item is not None:
            kept = tree.get(path) == "unreadable" or any(is_below(path, c) for c in closed)
            expected.append(Unchanged(item) if kept else Vanished(item))

    actual = list(
        compare(ROOT, sorted(found.values(), key=place), [items[p] for p in sorted(items)])
    )
    assert len(actual) == len(expected)
    assert set(actual) == set(expected)
