"""What is written for people and for programs, down to the bytes."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cli import render
from cli.explain import Note
from indexer.report import Report, Silence
from indexer.scan import Skipped
from retrieval.index import Device
from retrieval.models import Listed
from retrieval.search import Hit, Span
from retrieval.store import Space, Summary
from retrieval.types import WHOLE, Modality, Place

KEYS = ["path", "modality", "score", "start_s", "end_s", "space"]
NAMES = [
    b"/a/new\nline.jpg",
    b"/a/q'uo\"te.jpg",
    "/a/🦊 日本.jpg".encode(),
    b"/a/\xff\xfe.jpg",
    b"/a/\x1b[31mred\x1b]0;title\x07.jpg",
    "/a/\u202egpj.exe".encode(),  # would show as exe.jpg
    b"/a/tab\t and cr\r.jpg",
    "/a/\u2028line.jpg".encode(),
    b"/a/ space .jpg",
]


def hit(path: bytes = b"/a/b.jpg", place: Place = WHOLE, *, relevance: float = 0.5) -> Hit:
    """Makes a hit."""
    modality = Modality.IMAGE if place == WHOLE else Modality.TEXT
    return Hit(path, modality, 0.25, relevance, place, "colours-1")


class Stream(io.TextIOWrapper):
    """A stdout of a given encoding that may say that it is a terminal."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding, errors="backslashreplace", newline="\n")
        self._terminal = terminal

    def isatty(self) -> bool:
        """Tells what it was told."""
        return self._terminal

    @property
    def written(self) -> bytes:
        """What was written so far."""
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue()


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Gives a function that writes hits and returns what reached stdout."""

    def written(
        found: Sequence[Hit],
        format: str,
        *,
        null: bool = False,
        encoding: str = "utf-8",
        terminal: bool = False,
        notes: Sequence[Note] = (),
    ) -> bytes:
        stream = Stream(encoding, terminal=terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        try:
            render.hits(found, format, [], null=null, notes=notes)
            return stream.written
        finally:
            monkeypatch.undo()

    return written


Write = Callable[..., bytes]


# ---- paths and remarks -------------------------------------------------------------------------


def test_shown() -> None:
    """Whatever is not printable is escaped, in one line, and the rest stays as it is."""
    assert [render.shown(name).removeprefix("/a/") for name in NAMES] == [
        r"new\nline.jpg",
        "q'uo\"te.jpg",
        "🦊 日本.jpg",
        r"\xff\xfe.jpg",
        r"\x1b[31mred\x1b]0;title\x07.jpg",
        r"\u202egpj.exe",
        r"tab\t and cr\r.jpg",
        r"\u2028line.jpg",
        " space .jpg",
    ]


def test_shown_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths below the working folder are shown relative to it, others in full."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert render.shown(os.fsencode(here / "a" / "b.jpg")) == "a/b.jpg"
    assert (
        render.shown(os.fsencode(tmp_path / "here-not" / "b.jpg")) == f"{tmp_path}/here-not/b.jpg"
    )
    here.rmdir()
    assert render.shown(b"/a/b.jpg") == "/a/b.jpg"


def test_printable_takes_any_text() -> None:
    """Half a surrogate pair, as a damaged document may hold, is escaped as well."""
    assert render.printable("a\ud800b\udcffc\x00") == r"a\ud800b\xffc\x00"


def test_remark(capsys: pytest.CaptureFixture[str]) -> None:
    """A remark is one line on stderr, whatever is in it."""
    render.remark("no file at x\ny\x1b[31m")
    assert capsys.readouterr() == ("", "anyseek: no file at x\\ny\\x1b[31m\n")


# ---- hits --------------------------------------------------------------------------------------


def test_json(write: Write) -> None:
    """One object per line, with the promised keys and the numbers of the hit."""
    place = Place(start_s=1.5, end_s=2.5, page=3, line=4, text="words\nand more")
    first, second = write([hit(), hit(b"/a/c.txt", place)], "json").splitlines()
    assert json.loads(first) == {
        "path": "/a/b.jpg",
        "modality": "image",
        "score": 0.25,
        "relevance": 0.5,
        "start_s": None,
        "end_s": None,
        "page": None,
        "line": None,
        "text": None,
        "spans": [],
        "words": None,
        "sources": {},
        "space": "colours-1",
        "confident": True,
        "date": None,
        "taken_at": None,
        "camera": None,
        "lat": None,
        "lon": None,
        "width": None,
        "height": None,
        "duration_s": None,
    }
    found = json.loads(second)
    assert [found[key] for key in KEYS] == ["/a/c.txt", "text", 0.25, 1.5, 2.5, "colours-1"]
    assert (found["page"], found["line"], found["text"]) == (3, 4, "words\nand more")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_names(write: Write, encoding: str) -> None:
    """Every name comes back exactly from JSON, whatever the encoding of stdout."""
    written = write([hit(name) for name in NAMES], "json", encoding=encoding)
    lines = written.decode(encoding).split("\n")
    assert lines.pop() == ""
    assert [os.fsencode(json.loads(line)["path"]) for line in lines] == NAMES
    assert b"\x1b" not in written


def test_json_shows_scripts_as_they_are(write: Write) -> None:
    """A name in another script is legible without a JSON reader."""
    assert "🦊 日本.jpg".encode() in write([hit(NAMES[2])], "json")


def test_json_with_half_a_surrogate(write: Write) -> None:
    """Text that is no valid Unicode still makes valid JSON."""
    written = write([hit(place=Place(text="a\ud800"))], "json")
    assert json.loads(written)["text"] == "a\ud800"


def test_paths(write: Write) -> None:
    """Bare paths are the very bytes, ended by newline or NUL."""
    found = [hit(name) for name in NAMES]
    assert write(found, "paths", null=True) == b"".join(name + b"\0" for name in NAMES)
    assert write(found, "paths") == b"".join(name + b"\n" for name in NAMES)
    assert write(found, "paths", encoding="ascii", null=True).split(b"\0") == [*NAMES, b""]


def test_table_in_a_pipe(write: Write) -> None:
    """A pipe gets columns parted by tabs, a line per hit, without heading or codes."""
    places = [
        WHOLE,
        Place(line=7, text="some  words\nover lines"),
        Place(page=2, line=7, text="x" * 100),
        Place(start_s=10.0, end_s=20.0),
        Place(text="\x1b[31mred"),
    ]
    written = write([hit(b"/a/b", place, relevance=0.987) for place in places], "table")
    assert written.decode().splitlines() == [
        "0.99\timage\t/a/b",
        "0.99\ttext\t/a/b\tline 7: some words over lines",
        "0.99\ttext\t/a/b\tpage 2: " + "x" * 79 + "…",
        "0.99\ttext\t/a/b\t0:10-0:20",
        "0.99\ttext\t/a/b\t\\x1b[31mred",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_table_names(write: Write, encoding: str) -> None:
    """Names cannot break the lines, add columns, or speak to the terminal."""
    written = write([hit(name) for name in NAMES], "table", encoding=encoding)
    lines = written.decode(encoding).split("\n")
    assert len(lines) == len(NAMES) + 1
    assert [line.count("\t") for line in lines[:-1]] == [2] * len(NAMES)
    assert not {byte for byte in written if byte < 32} - set(b"\t\n")


def test_table_on_a_terminal(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a heading and links, and nothing that a name would tell it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    found = [hit(name) for name in NAMES] + [hit(b"/a/c.txt", Place(line=3, text="\x1b[5mwords"))]
    written = write(found, "table", terminal=True)
    text = written.decode()
    first = text.splitlines()[0]
    assert [word in first for word in ("relevance", "kind", "file", "where")] == [True] * 4
    for name in NAMES[:7]:
        assert render.shown(name) in text
    assert "line 3: \\x1b[5mwords" in text
    for forbidden in ("\x1b[31m", "\x1b[5m", "\x1b]0;", "\u202e", "\x07"):
        assert forbidden not in text
    assert "file:///a/%FF%FE.jpg" in text


def test_notes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hit has its own note: indented in a pipe, in the file's column on a terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    found = [hit(b"/a/b.jpg"), hit(b"/a/c.jpg")]
    notes = [Note(("one", "two"), {"near": "\udcff"}), Note(("three",), {"near": "é"})]
    assert write(found, "table", notes=notes).decode().splitlines() == [
        "0.50\timage\t/a/b.jpg",
        "    one",
        "    two",
        "0.50\timage\t/a/c.jpg",
        "    three",
    ]
    rows = [json.loads(line) for line in write(found, "json", notes=notes).splitlines()]
    assert [row["explanation"] for row in rows] == [{"near": "\udcff"}, {"near": "é"}]
    assert write(found, "paths", notes=notes) == b"/a/b.jpg\n/a/c.jpg\n"
    monkeypatch.setenv("TERM", "dumb")
    shown = write(found, "table", terminal=True, notes=notes).decode().splitlines()
    words = [[word for word in line.split() if word] for line in shown]
    assert [line[-1] for line in words[1:]] == ["/a/b.jpg", "one", "two", "/a/c.jpg", "three"]


def test_reasons_for_missing_maps_are_remarks(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a note could not give is said on stderr, once."""
    write([hit(), hit()], "table", notes=[Note((), {}, "no map of x"), Note((), {})])
    assert capsys.readouterr().err == "anyseek: no map of x\n"


def test_no_hits(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Without hits stdout stays empty in every format, and stderr says so."""
    for format in ("table", "json", "paths"):
        for terminal in (False, True):
            assert write([], format, terminal=terminal) == b""
            assert capsys.readouterr().err == "anyseek: nothing in the index answers this\n"


def test_remarks_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """What the search has to say is no result."""
    render.hits([hit()], "paths", ["one", "two"], null=False)
    assert capsys.readouterr().err == "anyseek: one\nanyseek: two\n"


# ---- reports -----------------------------------------------------------------------------------


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """The counts go to stdout, each failure with its reason to stderr."""
    failed = [Skipped(b"/a/\x1b.jpg", "is empty"), Skipped(b"/b", "no permission", True)]
    render.report(Report(1, 2, 3, 4, 5, failed, seconds=1.25))
    out, err = capsys.readouterr()
    counts = "1 added, 2 updated, 3 renamed, 4 removed, 5 unchanged, 2 failed"
    assert out == f"{counts} in 1.2 s\n"
    assert err == "anyseek: skipped /a/\\x1b.jpg: is empty\nanyseek: skipped /b: no permission\n"


def test_report_of_a_broken_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of failures are counted, not all named."""
    render.report(Report(failed=[Skipped(b"/%d" % i, "is empty") for i in range(1_000)]))
    out, err = capsys.readouterr()
    assert "1000 failed" in out
    lines = err.splitlines()
    assert len(lines) == render.NAMED_FAILURES + 1
    assert lines[0] == "anyseek: skipped /0: is empty"
    assert lines[-1] == "anyseek: and 950 more that could not be used"


def test_report_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without anything to index is told apart from one that is up to date."""
    render.report(Report())
    assert "found nothing to index there" in capsys.readouterr().err
    render.report(Report(unchanged=1))
    assert capsys.readouterr().err == ""
    render.report(Report(interrupted=True))
    assert capsys.readouterr().err == ""
    render.report(Report(removed=1))
    assert "found nothing to index there" in capsys.readouterr().err


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts per modality and space, the size with the derived files, and what to do next."""
    index = tmp_path / "index.db"
    index.write_bytes(b"x" * 1_500)
    derived = tmp_path / "index.db.derived"
    derived.mkdir()
    (derived / "1.faiss").write_bytes(b"x" * 2_000)
    summary = Summary(
        items={Modality.IMAGE: 3, Modality.TEXT: 1},
        parts={Modality.IMAGE: 3, Modality.TEXT: 7},
        vectors={("colours-1", Modality.IMAGE): 3, ("colours-1", Modality.TEXT): 7},
        spaces=(Space(1, "colours-1", "colours", 8), Space(2, "colours-2", "colours", 9)),
        generation=4,
        last_indexed_s=1_700_000_000,
    )
    render.status(index, summary, Device("cpu", "because"))
    out, err = capsys.readouterr()
    lines = {line[:14].strip(): line[14:] for line in out.splitlines()}
    assert lines["index"] == str(index)
    assert lines["image"] == "3 items"
    assert lines["text"] == "1 items in 7 parts"
    assert "colours-1 (8 dimensions): 3 image, 7 text" in out
    assert "colours-2 (9 dimensions): empty" in out
    assert lines["on disk"] == "3.5 KB"
    assert lines["last indexed"].startswith("2023-11-1")
    assert lines["compared on"] == "cpu: because"
    assert lines["next"].startswith("anyseek search ")
    assert err == ""


def test_status_of_an_empty_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty index says how to fill it."""
    empty = Summary({}, {}, {}, (), 0, None)
    index = tmp_path / os.fsdecode(b"\xff.db")
    render.status(index, empty, Device("cpu", "because"))
    out = capsys.readouterr().out
    assert f"index         {tmp_path}/\\xff.db" in out
    assert "anyseek index FOLDER" in out
    assert "last indexed" not in out


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Every field of a model's row is a column, or a key."""
    row = Listed(
        name="colours",
        modalities=(Modality.IMAGE, Modality.TEXT),
        dim=8,
        size_bytes=12_345_678,
        licence="CC0",
        here=False,
        quality="none",
        about="for tests",
        space=None,
        source="ORG/colours",
    )
    render.models([row])
    assert capsys.readouterr().out.rstrip("\n").split("\t") == [
        "colours",
        "image, text",
        "8",
        "12.3 MB",
        "CC0",
        "no",
        "none",
        "for tests",
    ]
    render.models([row], as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "name": "colours",
        "modalities": ["image", "text"],
        "dim": 8,
        "size_bytes": 12_345_678,
        "licence": "CC0",
        "here": False,
        "quality": "none",
        "about": "for tests",
        "space": None,
        "source": "ORG/colours",
    }


def test_progress_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets no bar."""
    with render.progress() as progress:
        progress.total(10)
        progress.advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a bar with how many of how many."""
    stream = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    with render.progress() as progress:
        progress.total(10)
        progress.advance(3)
    written = stream.written.decode()
    monkeypatch.undo()
    assert "indexing" in written
    assert "3/10" in written


# ---- sounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (4.4, "0:04"),
        (7.6, "0:08"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (65, "1:05"),
        (600, "10:00"),
        (3_599.4, "59:59"),
        (3_599.9, "1:00:00"),
        (3_723, "1:02:03"),
        (86_399, "23:59:59"),
    ],
)
def test_clock(seconds: float, shown: str) -> None:
    """Places in a recording look as players show them, to the nearest second."""
    assert render.clock(seconds) == shown


def recording(*spans: Span) -> Hit:
    """Makes a hit of a sound."""
    place = Place(start_s=spans[0].start_s, end_s=spans[0].start_s + 10)
    return Hit(b"/a/b.wav", Modality.AUDIO, 0.25, spans[0].relevance, place, "colours-1", spans)


SPANS = (
    Span(65.0, 80.0, 0.98765),
    Span(0.0, 10.0, 0.8),
    Span(3_600.0, 3_723.25, 0.7),
    Span(20.0, 30.0, 0.6),
)


def test_json_of_a_sound(write: Write) -> None:
    """The best window, and every span with its relevance, the best first."""
    found = json.loads(write([recording(*SPANS)], "json"))
    assert [found[key] for key in KEYS] == ["/a/b.wav", "audio", 0.25, 65.0, 75.0, "colours-1"]
    assert found["spans"] == [
        {"start_s": 65.0, "end_s": 80.0, "relevance": 0.9877},
        {"start_s": 0.0, "end_s": 10.0, "relevance": 0.8},
        {"start_s": 3600.0, "end_s": 3723.25, "relevance": 0.7},
        {"start_s": 20.0, "end_s": 30.0, "relevance": 0.6},
    ]
    assert (found["page"], found["line"], found["text"]) == (None, None, None)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_spans_in_a_table(write: Write, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Three are shown, the best first, and a sign that there are more."""
    want = ", ".join(["1:05-1:20", "0:00-0:10", "1:00:00-1:02:03"][:count])
    want += ", …" if count == 4 else ""
    hits = [recording(*SPANS[:count])]
    assert write(hits, "table").decode() == f"0.99\taudio\t/a/b.wav\t{want}\n"
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    shown = write(hits, "table", terminal=True).decode()
    assert "where" in shown.splitlines()[0]
    assert want in shown


def test_silence_in_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    """What got no vector is remarked on stderr, in one line, whatever the name."""
    silence = Silence()
    assert silence.remarks() == []
    silence.add(b"/a/x.wav", ())
    assert silence.remarks() == []
    silence.add(b"/a/\n.wav", [Place(start_s=10.0, end_s=20.0), Place(start_s=15.0, end_s=25.0)])
    silence.add(b"/a/z.wav", [Place(start_s=0.0, end_s=10.0)])
    render.report(Report(added=2, remarks=silence.remarks()))
    assert capsys.readouterr().err == (
        "anyseek: 3 silent window(s) in 2 sound(s) got no vector, the first in /a/\\n.wav "
        "at 10-20 s\n"
    )
