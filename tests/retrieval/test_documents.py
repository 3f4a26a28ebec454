"""Passages hold every word of a text, in order, where it stands, in pieces of a bounded size."""

from __future__ import annotations

import html
import importlib.util
import io
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import documents
from retrieval.documents import PASSAGE_CHARACTERS, passages
from retrieval.errors import MediaError

Passage = tuple[int | None, int | None, str]


def split(content: str | bytes, name: str = "a.txt") -> list[Passage]:
    """Page, line and words of every passage, after checks that hold for all of them."""
    parts = passages(content.encode() if isinstance(content, str) else content, name)
    for part in parts:
        assert part.content == part.place.text
        assert 0 < len(part.content) <= PASSAGE_CHARACTERS
        assert part.content == " ".join(part.content.split())
        assert (part.place.start_s, part.place.end_s) == (None, None)
    return [(part.place.page, part.place.line, part.content) for part in parts]


def words(content: str | bytes, name: str = "a.txt") -> str:
    """All the words of a text file, as they come out."""
    return " ".join(text for _, _, text in split(content, name))


# ---- encodings ---------------------------------------------------------------------------------

GERMAN = "Äpfel, Birnen und Nüsse – „frisch“ vom Markt. Größe: süß!"
CHINESE = "我们在海边看到一只狗。它在沙滩上奔跑，追逐海浪。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain words", "ascii"),
        (GERMAN, "utf-8"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "cp1252"),
        ("Grüße aus Köln, schöne Straßen.", "latin-1"),
        (CHINESE, "utf-8"),
        (CHINESE, "utf-8-sig"),
        (CHINESE, "utf-16"),
        (CHINESE, "gb18030"),
        ("日本語の文章。海辺の犬。", "utf-8"),
        ("собака на берегу моря", "utf-16"),
    ],
)
def test_encodings_are_told_apart(text: str, encoding: str) -> None:
    """The words are those that were written, without a byte order mark."""
    assert words(text.encode(encoding)) == words(text)
    assert "\ufeff" not in words(text.encode(encoding))


def test_both_byte_orders_of_utf_16_are_read() -> None:
    """The mark at the beginning decides; half a character at the end is no reason to refuse."""
    assert words(b"\xff\xfe" + "hello world".encode("utf-16-le")) == "hello world"
    assert words(b"\xfe\xff" + "hello world".encode("utf-16-be")) == "hello world"
    assert words(b"\xff\xfe" + "hello world".encode("utf-16-le") + b"x").startswith("hello world")


def test_bytes_that_no_encoding_explains_are_latin() -> None:
    """0x81 means nothing in cp1252, and the rest of the file is read all the same."""
    assert words(b"one two three four five six \x81 seven") == (
        "one two three four five six \x81 seven"
    )


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\x01\0", b"\xff\xd8\xff\xe0\0\x10JFIF", b"a\0b"])
def test_binary_data_is_refused(data: bytes) -> None:
    """A name does not make a text."""
    with pytest.raises(MediaError, match="is binary data, not text"):
        passages(data, "a.txt")


@pytest.mark.parametrize("content", ["", " \n\t\n", "\ufeff", "...\n---\n***", "🐕 🐈"])
@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_a_file_without_words_is_refused(content: str, name: str) -> None:
    """There is nothing in it that could be found."""
    with pytest.raises(MediaError, match="holds no words"):
        passages(content.encode(), name)


def test_endless_texts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts characters, not bytes."""
    monkeypatch.setattr(documents, "MAX_CHARACTERS", 10)
    assert words("ü" * 10) == "ü" * 10
    with pytest.raises(MediaError, match="characters"):
        passages(b"x" * 11, "a.txt")


# ---- splitting ---------------------------------------------------------------------------------


def test_short_texts_are_one_passage() -> None:
    """Lines and small paragraphs are joined; the place is the first line with words."""
    assert split("\n\n  Hello,\tworld. \n\nHow are\nyou?\n") == [
        (None, 3, "Hello, world. How are you?")
    ]


def test_long_texts_are_cut_between_sentences() -> None:
    """Sentences of 100 characters go four to a passage, whatever their lines."""
    sentences = [f"{number:02d} " + "x" * 95 + ("." if number % 2 else "!") for number in range(10)]
    lines = [" ".join(sentences[start : start + 3]) for start in range(0, 10, 3)]
    assert split("\n".join(lines)) == [
        (None, 1, " ".join(sentences[:4])),
        (None, 2, " ".join(sentences[4:8])),
        (None, 3, " ".join(sentences[8:])),
    ]


def test_a_paragraph_ends_a_passage_that_is_long_enough() -> None:
    """From half the size on an empty line cuts; before, the next paragraph is joined."""
    long, short = "word " * 40 + "end.", "Brief."
    assert [line for _, line, _ in split(f"{long}\n\n{short}\n\n{short}")] == [1, 3]
    assert [line for _, line, _ in split(f"{short}\n\n{long}\n\n{short}")] == [1, 5]


def test_a_passage_may_be_exactly_full() -> None:
    """What just fits is joined, and one character more is not."""
    first, second = "x" * 198 + ".", "y" * 199 + "."
    assert [text for _, _, text in split(f"{first} {second}")] == [f"{first} {second}"]
    assert [text for _, _, text in split(f"{first} y{second}")] == [first, f"y{second}"]


def test_a_word_longer_than_a_passage_is_cut() -> None:
    """Nothing in it tells where; nothing of it is lost."""
    found = split("start " + "x" * 1000 + " end")
    assert [len(text) for _, _, text in found] == [400, 400, 210]
    assert "".join(text for _, _, text in found).replace(" ", "") == "start" + "x" * 1000 + "end"


def test_long_sentences_are_cut_where_a_word_ends() -> None:
    """A text without full stops keeps its words whole."""
    sentence = " ".join(f"word{number}" for number in range(300))
    found = split(sentence)
    assert len(found) > 4
    assert " ".join(text for _, _, text in found).split() == sentence.split()
    assert all(len(text) > PASSAGE_CHARACTERS / 2 for _, _, text in found[:-1])
    exact = "x" * 200 + " " + "y" * 199  # 400 characters, and one word more
    assert [text for _, _, text in split(exact + " z")] == [exact, "z"]


def test_chinese_is_cut_at_its_own_full_stops() -> None:
    """No spaces, but sentences: each passage ends with one."""
    sentences = [chr(0x4E00 + number) * 30 + "。！？"[number % 3] for number in range(40)]
    found = split("".join(sentences))
    assert len(found) >= 4
    assert all(text[-1] in "。！？" for _, _, text in found)
    assert "".join(text for _, _, text in found).replace(" ", "") == "".join(sentences)
    endless = "".join(chr(0x4E00 + number) for number in range(1000))
    assert "".join(text for _, _, text in split(endless)) == endless


def test_lines_are_counted_as_editors_do() -> None:
    """Page feeds and the rarer Unicode separators do not start a line."""
    filler = "word " * 60 + "end."
    for end in ("\n", "\r\n", "\r"):
        content = f"one\x0c\u2028\x85two{end}{end}{filler}{end}{end}three"
        assert [line for _, line, _ in split(content.encode("utf-8"))] == [1, 5]


def test_markup_that_people_read_is_text() -> None:
    """Markdown and reStructuredText come as they are written, under any of their names."""
    content = "# Bread\n\n- *flour*, 500 g\n- water\n\n```\nbake(230)\n```\n"
    for name in ("a.md", "a.markdown", "a.rst", "a.TXT", "a.text"):
        assert split(content, name) == [
            (None, 1, "# Bread - *flour*, 500 g - water ``` bake(230) ```")
        ]


TOKENS = st.sampled_from(["", ".", "!", "?", ",", "。", "？", "...", ' "', ")"])
BREAKS = st.sampled_from([" ", " ", " ", "  ", "\t", "\n", "\n", "\n\n", "\r\n", "\n \n"])


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]]]:
    """A text of words that occur once, and on which line each of them begins."""
    content, places, line = draw(st.sampled_from(["", "\n", "  "])), [], 1
    line += content.count("\n")
    count = draw(st.integers(1, 250))
    rng = random.Random(draw(st.integers(0, 2**32)))
    stops = draw(st.lists(TOKENS, min_size=1, max_size=8))
    breaks = draw(st.lists(BREAKS, min_size=1, max_size=8))
    for number in range(count):
        word = f"w{number}" + rng.choice(["", "x" * rng.randrange(12), "界" * rng.randrange(5)])
        places.append((word, line))
        gap = rng.choice(breaks)
        content += word + rng.choice(stops) + gap
        line += gap.count("\n")
    return content, places


@settings(max_examples=80)
@given(text=texts())
def test_no_word_is_lost_and_every_passage_knows_its_line(
    text: tuple[str, list[tuple[str, int]]],
) -> None:
    """All characters in order; each passage begins with a word of the line that it names."""
    content, places = text
    found = split(content)
    together = "".join(text for _, _, text in found)
    assert together.replace(" ", "") == "".join(content.split())
    line_of = dict(enumerate(line for _, line in places))
    for _, line, passage in found:
        word = re.match(r"w(\d+)", passage)
        if word:
            assert line_of[int(word[1])] == line
        else:  # what follows a full stop: a closing quote or bracket
            assert passage[0] in '").!?,。？'
    lines = [line for _, line, _ in found]
    assert lines == sorted(lines, key=lambda line: line or 0)


@settings(max_examples=60)
@given(content=st.text(max_size=1500))
def test_any_text_keeps_its_letters_and_digits(content: str) -> None:
    """Whatever characters there are: letters and digits come out as they went in."""
    want = "".join(filter(str.isalnum, content))
    try:
        found = "".join(text for _, _, text in split(content.encode("utf-8-sig")))
    except MediaError as error:
        if "\0" in content:
            return
        if want:
            raise AssertionError(content) from error
        return
    assert "".join(filter(str.isalnum, found)) == want


# ---- HTML --------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html>
<html><head><title>The Title</title>
<style>p { color: red }</style>
<script>var hidden = "<p>secret</p>";</script>
</head><body>
<!-- a comment -->
<p>Tom &amp; Jerry caf&eacute; &#8364;5 x&lt;y</p>
<img src="a.jpg" alt="a dog at the sea"><img alt="closed" />
<template>unseen</template><noscript>no script</noscript>
<ul><li>one</li><li>two</li></ul>
un<b>brok</b>en<br>next
<svg><text>drawn</text></svg>
</body></html>
"""


def test_html_is_what_a_browser_shows() -> None:
    """Scripts, styles and comments are unseen; pictures count by their description."""
    assert split(PAGE, "a.html") == [
        (
            None,
            2,
            "The Title Tom & Jerry café €5 x<y a dog at the sea closed one two unbroken next",
        )
    ]
    for name in ("a.htm", "a.XHTML"):
        assert words(PAGE, name) == words(PAGE, "a.html")
    assert "secret" in words(PAGE, "a.txt")  # under a text's name it is text


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("<![if !IE]>hello<![endif]> world", "hello world"),
        ("<![unknown[ x ]]>hello", "hello"),
        ("a<svg/>b<svg><b/>c</svg>d", "a b d"),
        ("<script>x</script>a<style>y</style>b", "a b"),
        ("a</svg>b", "a b"),
    ],
)
def test_html_ends_what_is_unseen_where_it_ends(content: str, shown: str) -> None:
    """What follows is seen again."""
    assert words(content, "a.html") == shown


def test_html_knows_its_lines() -> None:
    """A passage names the line of the file where its words begin."""
    filler = "word " * 60 + "end."
    content = f"<html>\n<body>\n\n<p>first\nsecond {filler}</p>\n<p\nclass='x'>third</p>"
    assert [(line, text[:5]) for _, line, text in split(content, "a.html")] == [
        (4, "first"),
        (7, "third"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "<![if !IE]>hello<![endif]>",
        "<![unknown[ x ]]>hello",
        "hello<![",
        "hello <!x y <a href='",
        "<p>hello<p></div></script></svg></p>",
        "hello <?php echo 1 ?>",
        "hello &#xffffffffff; &#0; &nosuch; &",
        "<a b='1' b='2' =>hello</a><//><>",
        "<!DOCTYPE [<!ENTITY x 'y'>]>hello",
    ],
)
def test_broken_html_still_has_its_words(content: str) -> None:
    """Browsers show such pages, so they are read."""
    assert "hello" in words(content, "a.html")


def test_any_bytes_are_html_or_a_reason() -> None:
    """Cut, doubled and shuffled pages raise nothing but `MediaError`."""
    chance = random.Random(4)
    pieces = [
        "<",
        ">",
        "</",
        "/>",
        "<!",
        "<![",
        "[",
        "]]>",
        "<!--",
        "-->",
        "&",
        ";",
        "#x",
        "=",
        "'",
    ]
    pieces += ['"', "<p", "<script", "</script>", "<svg>", "<?", "alt", "<img alt=", "\n", " ", "w"]
    for _ in range(800):
        content = "".join(chance.choices(pieces, k=chance.randrange(1, 25)))
        try:
            split(content, "a.html")
        except MediaError as error:
            assert "words" in str(error)  # noqa: PT017


@settings(max_examples=40)
@given(text=texts(), seed=st.integers(0, 2**32))
def test_tags_neither_lose_nor_move_words(
    text: tuple[str, list[tuple[str, int]]], seed: int
) -> None:
    """The same words with tags strewn between them come out the same, on the same lines."""
    content, places = text
    rng = random.Random(seed)
    tags = ["<p>", "</p>", "<br/>", "<b>", "</b>", "<div class='a'>", "<!-- c -->", ""]
    marked = "".join(
        piece if not piece.isspace() else rng.choice(tags) + piece + rng.choice(tags)
        for piece in _pieces(html.escape(content))
    )
    found = split(marked, "a.html")
    assert "".join(text for _, _, text in found).replace(" ", "") == "".join(content.split())
    for _, line, passage in found:
        word = re.match(r"w(\d+)", passage)
        if word:
            assert places[int(word[1])][1] == line


def _pieces(content: str) -> list[str]:
    """Runs of white space and runs of other characters."""
    pieces: list[str] = []
    for character in content:
        if pieces and pieces[-1].isspace() == character.isspace():
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


# ---- PDF ---------------------------------------------------------------------------------------


def make_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF by hand: one stream of text lines per page, in Helvetica."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for lines in pages:
        shown = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        stream = f"BT /F1 12 Tf 50 750 Td {shown} ET"
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects) + 2} 0 R"
            " /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica"
            " >> >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(pages)} >>"
    data, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n"
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    data += "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    data += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return data.encode("ascii")


TWO_PAGES = make_pdf([["The first page", "has two lines."], [], ["The third has one."]])


def encrypted(data: bytes, *, user: str, aes: bool = False) -> bytes:
    """The same PDF with a password; with `aes` it says so, and its streams are noise."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import NameObject, NumberObject

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(user, "owner", algorithm="RC4-128")
    if aes:
        from pypdf.generic import DictionaryObject

        entry: Any = writer._encrypt_entry
        kind = {NameObject("/CFM"): NameObject("/AESV2"), NameObject("/Length"): NumberObject(16)}
        entry[NameObject("/V")] = NumberObject(4)
        entry[NameObject("/R")] = NumberObject(4)
        entry[NameObject("/CF")] = DictionaryObject({NameObject("/StdCF"): DictionaryObject(kind)})
        entry[NameObject("/StmF")] = entry[NameObject("/StrF")] = NameObject("/StdCF")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_pdf_pages_keep_their_numbers() -> None:
    """Passages do not cross pages, and empty pages are counted."""
    assert split(TWO_PAGES, "a.pdf") == [
        (1, 1, "The first page has two lines."),
        (3, 1, "The third has one."),
    ]
    assert split(TWO_PAGES, "A.PDF") == split(TWO_PAGES, "a.pdf")


def test_long_pdf_pages_are_split_with_their_lines() -> None:
    """Lines count from the top of each page."""
    lines = [f"Line {number} of the page is here and it ends." for number in range(30)]
    found = split(make_pdf([lines, lines]), "a.pdf")
    assert {page for page, _, _ in found} == {1, 2}
    for number in (1, 2):
        own = [(line, text) for page, line, text in found if page == number]
        assert " ".join(text for _, text in own) == " ".join(lines)
        for line, text in own:
            assert line is not None
            assert text.startswith(lines[line - 1])


def test_pdf_with_a_password_is_refused_but_not_with_an_empty_one() -> None:
    """Many files are only locked against printing; those open for everybody."""
    with pytest.raises(MediaError, match="locked with a password"):
        passages(encrypted(TWO_PAGES, user="secret"), "a.pdf")
    assert split(encrypted(TWO_PAGES, user=""), "a.pdf") == split(TWO_PAGES, "a.pdf")


@pytest.mark.skipif(
    importlib.util.find_spec("cryptography") is not None
    or importlib.util.find_spec("Crypto") is not None,
    reason="pypdf can decrypt AES here",
)
def test_pdf_that_needs_another_library_says_so() -> None:
    """The run goes on, and the reason is the remedy."""
    with pytest.raises(MediaError, match="pip install cryptography"):
        passages(encrypted(TWO_PAGES, user="", aes=True), "a.pdf")


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7\n", b"a text", TWO_PAGES[:60], TWO_PAGES[5:90]])
def test_what_is_no_pdf_is_refused(data: bytes) -> None:
    """Under a PDF's name nothing else is read."""
    with pytest.raises(MediaError, match=r"damaged PDF|no words"):
        passages(data, "a.pdf")


def test_pdf_without_text_is_refused() -> None:
    """A scan has no words to find."""
    with pytest.raises(MediaError, match="holds no words"):
        passages(make_pdf([[], []]), "a.pdf")


def test_endless_pdfs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the pages and the characters on them are limited."""
    monkeypatch.setattr(documents, "MAX_PAGES", 2)
    with pytest.raises(MediaError, match="over 2 pages"):
        passages(TWO_PAGES, "a.pdf")
    monkeypatch.setattr(documents, "MAX_PAGES", 3)
    monkeypatch.setattr(documents, "MAX_CHARACTERS", 40)
    with pytest.raises(MediaError, match="characters"):
        passages(TWO_PAGES, "a.pdf")


def test_truncated_and_damaged_pdfs_fail_with_a_reason_or_not_at_all() -> None:
    """Whatever bytes are missing or changed, nothing but a `MediaError` comes out."""
    chance = random.Random(11)
    sources = [TWO_PAGES, encrypted(TWO_PAGES, user="")]
    for _ in range(250):
        data = bytearray(chance.choice(sources))
        if chance.random() < 0.4:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.choice((0, 1, 5, 20))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            split(bytes(data), "a.pdf")
        except MediaError:
            continue
