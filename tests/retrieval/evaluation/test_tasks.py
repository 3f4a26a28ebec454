"""Data of a person's own become questions with right answers; what cannot be meant is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from retrieval.errors import EvaluationError
from retrieval.evaluation.tasks import Labelled, Task, read


def picture(path: Path, colour: str = "red") -> None:
    """Writes a small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures and two things with a sound's name."""
    for name in ("a.png", "b.png", "in/c.png"):
        picture(tmp_path / name)
    for name in ("one.wav", "two.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    return tmp_path


def tasks_of(data: Path, **options: bool | str | Path) -> dict[str, Task]:
    """Reads tasks by name."""
    found = read(data, **options).tasks  # type: ignore[arg-type]
    return {task.name: task for task in found if isinstance(task, Task)}


def pairs_of(task: Task) -> list[tuple[str, str, float]]:
    """Gives what is right by names."""
    return [
        (task.queries[query].name, task.items[item].name, grade)
        for query, item, grade in zip(
            task.query.tolist(), task.item.tolist(), task.grade.tolist(), strict=True
        )
    ]


CAPTIONS = "a.png\tred one\nb.png\tblue\none.wav\ta tone\na.png\tred again\nb.png\tblue\n"


@pytest.mark.parametrize(
    "text",
    [
        CAPTIONS,
        "\ufeffFile\tCaption\r\n" + CAPTIONS.replace("\n", "\r\n"),
        "caption\tn\timage\n"
        + "".join(f"{b}\t7\t{a}\n" for a, b in (r.split("\t") for r in CAPTIONS.splitlines())),
    ],
)
def test_captions(data: Path, text: str) -> None:
    """With and without a header, in any order of columns; what is said twice counts once."""
    (data / "captions.tsv").write_text(text, "utf-8")
    tasks = tasks_of(data)
    assert list(tasks) == ["text to image", "image to text", "text to audio", "audio to text"]
    forth = tasks["text to image"]
    assert pairs_of(forth) == [
        ("red one", "a.png", 1),
        ("red again", "a.png", 1),
        ("blue", "b.png", 1),
    ]
    assert forth.groups.tolist() == [0, 0, 1]
    back = tasks["image to text"]
    assert pairs_of(back) == [(item, query, 1) for query, item, _ in pairs_of(forth)]
    assert back.groups.tolist() == [0, 1]
    assert pairs_of(tasks["audio to text"]) == [("one.wav", "a tone", 1)]
    assert forth.items[0].path == data / "a.png"


def test_one_split_and_another_folder(data: Path, tmp_path: Path) -> None:
    """Lines of other splits do not count, and names start from where --files says."""
    table = tmp_path / "lists" / "my captions.tsv"
    table.parent.mkdir()
    table.write_text("image\tsplit\tcaption\na.png\tdev\tred\nnone.png\ttrain\tgone\n", "utf-8")
    tasks = tasks_of(table, files=data, split="dev")
    assert pairs_of(tasks["text to image"]) == [("red", "a.png", 1)]
    with pytest.raises(EvaluationError, match="no line of the split 'test'; there are 'dev', 'tr"):
        read(table, files=data, split="test")
    table.write_text("a.png\tred\n", "utf-8")
    with pytest.raises(EvaluationError, match="has no column split"):
        read(table, files=data, split="dev")


@pytest.mark.parametrize(
    "content",
    [
        [{"file": "a.png", "captions": ["red", "rose"]}, {"image": "in/c.png", "caption": "sea"}],
        {
            "images": [{"id": 7, "file_name": "a.png"}, {"id": "7", "file_name": "in/c.png"}],
            "annotations": [
                {"image_id": 7, "caption": " red\n"},
                {"image_id": 7, "caption": "rose"},
                {"image_id": "7", "caption": "sea"},
            ],
        },
    ],
)
def test_captions_in_json(data: Path, content: object) -> None:
    """A plain list, and tables as COCO has them, whose ids may be of any kind."""
    (data / "captions.json").write_text(json.dumps(content), "utf-8")
    found = pairs_of(tasks_of(data)["text to image"])
    assert found == [("red", "a.png", 1), ("rose", "a.png", 1), ("sea", "in/c.png", 1)]


def test_pairs(data: Path) -> None:
    """A picture may have several sounds, and a sound several pictures; in any order."""
    (data / "pairs.tsv").write_text("a.png\tone.wav\ntwo.wav\ta.png\nb.png\tone.wav\n", "utf-8")
    tasks = tasks_of(data)
    assert pairs_of(tasks["image to audio"]) == [
        ("a.png", "one.wav", 1),
        ("a.png", "two.wav", 1),
        ("b.png", "one.wav", 1),
    ]
    assert pairs_of(tasks["audio to image"]) == [
        ("one.wav", "a.png", 1),
        ("one.wav", "b.png", 1),
        ("two.wav", "a.png", 1),
    ]


WANT = [("two reds", "a.png", 2.0), ("two reds", "in/c.png", 1.0), ("sea", "b.png", 1.0)]


def test_queries_with_grades(data: Path) -> None:
    """All files of the kinds that were judged are searched; grades of 0 and less are wrong."""
    picture(data / "other.png")
    (data / "queries.tsv").write_text(
        "two reds\ta.png\t2\ntwo reds\tin/c.png\t1\nsea\tb.png\n"
        "two reds\tb.png\t0\nno\ta.png\t-2\n",
        "utf-8",
    )
    found = read(data)
    (task,) = found.tasks
    assert isinstance(task, Task)
    assert task.name == "text to image"
    assert pairs_of(task) == WANT
    assert [item.name for item in task.items] == ["a.png", "b.png", "other.png", "in/c.png"]
    assert found.remarks == ["1 queries have no right file; they are left out"]


@pytest.mark.parametrize(
    ("name", "topics"),
    [
        ("topics.tsv", "q1\ttwo reds\n2\tsea\n"),
        (
            "topics.txt",
            "<top>\n<num> Number: q1\n<title> two\n reds\n<desc> more\n</top>\n"
            "<top><num>2</num><title>Topic: sea</title></top>",
        ),
    ],
)
def test_trec(data: Path, name: str, topics: str) -> None:
    """Judgements and topics as TREC writes them mean the same as queries.tsv."""
    (data / name).write_text(topics, "utf-8")
    (data / "qrels.txt").write_text("q1 0 a.png 2\nq1 Q0 in/c.png 1\n2 0 b.png 1\n", "utf-8")
    (task,) = read(data).tasks
    assert isinstance(task, Task)
    assert pairs_of(task) == WANT


def test_classes(tmp_path: Path) -> None:
    """Folders are classes, their names the words; what lies deeper counts, hidden files do not."""
    picture(tmp_path / "polar_bear" / "x.png")
    picture(tmp_path / "Dog" / "deep" / "y.png")
    picture(tmp_path / "Dog" / ".hidden.png")
    picture(tmp_path / ".git" / "z.png")
    (task,) = read(tmp_path).tasks
    assert isinstance(task, Labelled)
    assert task.classes == ("Dog", "polar bear")
    assert [item.name for item in task.items] == ["Dog/deep/y.png", "polar_bear/x.png"]
    assert task.truth.tolist() == [0, 1]


def test_bad_classes(tmp_path: Path) -> None:
    """One class, an empty one, and two of the same name are said."""
    with pytest.raises(EvaluationError, match=r"nothing to measure on .*needs captions.tsv"):
        read(tmp_path)
    picture(tmp_path / "dog" / "x.png")
    with pytest.raises(EvaluationError, match="files of one class alone, 'dog'"):
        read(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(EvaluationError, match=r"the class 'cat' in .* is empty; put files"):
        read(tmp_path)
    picture(tmp_path / "bird" / "x.png")
    found = read(tmp_path, skip_missing=True)
    assert found.remarks == ["the class 'cat' is empty; it is left out"]
    assert [task.classes for task in found.tasks if isinstance(task, Labelled)] == [("bird", "dog")]
    picture(tmp_path / "Dog_" / "x.png")
    with pytest.raises(EvaluationError, match=r"'Dog_' and 'dog' .*name the same class"):
        read(tmp_path, skip_missing=True)


def test_missing_files(data: Path) -> None:
    """They are counted and listed once each, or left out."""
    rows = "".join(f"gone-{number}.png\tx\n" * 2 for number in range(7))
    (data / "captions.tsv").write_text("a.png\tred\n" + rows, "utf-8")
    with pytest.raises(EvaluationError, match=r"7 file.*'gone-0.png', .*'gone-4.png' and 2 more; "):
        read(data)
    found = read(data, skip_missing=True)
    assert found.missing == [f"gone-{number}.png" for number in range(7)]
    assert pairs_of(tasks_of(data, skip_missing=True)["text to image"]) == [("red", "a.png", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"captions.tsv is empty"),
        (b" \n\t\n", r"captions.tsv is empty"),
        ("a.png\tred".encode("utf-16"), "is in UTF-16"),
        ("a.png\tred".encode("utf-16-le"), "is in UTF-16"),
        ("a.png\tred\na.png\tcafé\n".encode("latin-1"), "not in UTF-8: line 2 has the byte 0xe9"),
        (b"a.png red\n", r"line 1: 1 columns where file and caption are needed"),
        (b"a.png\tred\tmore\n", r"line 1: 3 columns"),
        (b"a.png\t\n", r"line 1: a column is empty"),
        (b"file\tcaption\n", "nothing below it"),
        (b"a.png\tred\n../a.png\tred\n", r"line 2: '../a.png' lies outside"),
        (b"in/../../a.png\tred\n", r"line 1: .* lies outside"),
        (b"/etc/passwd\tred\n", r"line 1: '/etc/passwd' lies outside"),
        (b"a.exe\tred\n", "is no kind of file"),
        (b"a" * 5000 + b".png\tred\n", "1 file.s. that .* are not there"),
        (b"a.txt\tred\n", "is a text"),
    ],
)
def test_bad_captions(data: Path, content: bytes, message: str) -> None:
    """Each is one line that names the file, and the line where it can."""
    (data / "captions.tsv").write_bytes(content)
    (data / "a.txt").write_text("words", "utf-8")
    with pytest.raises(EvaluationError, match=message) as error:
        read(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "must be a list"),
        ("[]", "has no captions in it"),
        ('{"images": []}', "must be a list, or have images and annotations"),
        ('[{"file": "a.png", "captions": []}]', "entry 1: needs a file and a list"),
        ('[{"file": "a.png", "captions": [3]}]', "entry 1: a caption or a name is empty"),
        ('[{"file": "a.png", "captions": ["\\ud83d"]}]', "entry 1: has half a character"),
        ('{"images": [3], "annotations": []}', "image 1: has no file_name"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', "annotation 1: its image_id"),
    ],
)
def test_bad_json(data: Path, content: str, message: str) -> None:
    """Whatever stands there, it is an error of ours."""
    (data / "captions.json").write_text(content, "utf-8")
    with pytest.raises(EvaluationError, match=message):
        read(data)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"queries.tsv": "red\ta.png\tmuch\n"}, "line 1: the grade 'much' is no number"),
        ({"queries.tsv": "red\ta.png\tnan\n"}, "line 1: the grade 'nan' is no number"),
        ({"queries.tsv": "red\ta.png\t1\nred\ta.png\t2\n"}, "line 2: 'a.png' has two grades"),
        ({"queries.tsv": "red\ta.png\t0\n"}, "nothing is left to measure on"),
        ({"pairs.tsv": "a.png\tb.png\n"}, "line 1: a pair is a picture and a sound"),
        ({"qrels.txt": "1 0 a.png 1\n"}, "no topics.tsv or topics.txt beside"),
        ({"qrels.txt": "1 0 a.png\n", "topics.tsv": "1\tred\n"}, "line 1: 3 columns where topic"),
        ({"qrels.txt": "2 0 a.png 1\n", "topics.tsv": "1\tred\n"}, "the topic '2' is not among"),
        ({"qrels.txt": "2 0 a.png 1\n", "topics.txt": "<top> <num> 2"}, "has no <num> or no <ti"),
    ],
)
def test_bad_queries(data: Path, files: dict[str, str], message: str) -> None:
    """Grades, pairs and topics that mean nothing."""
    for name, text in files.items():
        (data / name).write_text(text, "utf-8")
    with pytest.raises(EvaluationError, match=message):
        read(data)


def test_nothing_there(tmp_path: Path) -> None:
    """A path that is not there is said, and numbers of things have the right kind."""
    with pytest.raises(EvaluationError, match="there is no file or folder at"):
        read(tmp_path / "none")
    picture(tmp_path / "a.png")
    (tmp_path / "captions.tsv").write_text("a.png\tred\n", "utf-8")
    task = tasks_of(tmp_path)["text to image"]
    kinds = [one.dtype.name for one in (task.query, task.item, task.grade)]
    assert kinds == ["int64", "int64", "float64"]
