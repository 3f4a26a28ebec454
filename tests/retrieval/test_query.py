"""The grammar of queries: what is read, what is refused, and that both are stable."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.query import (
    MAX_DEPTH,
    MAX_TERMS,
    AllOf,
    AnyOf,
    Blend,
    Kind,
    Query,
    Term,
    concept_name,
    parse,
    terms_of,
    with_options,
    written,
)


def words(text: str, weight: float = 1.0) -> Term:
    """A term of words."""
    return Term(Kind.WORDS, text, weight)


def file(path: str, weight: float = 1.0) -> Term:
    """A term that is a file."""
    return Term(Kind.FILE, path, weight)


def concept(name: str, weight: float = 1.0) -> Term:
    """A term that is a concept."""
    return Term(Kind.CONCEPT, name, weight)


def blend(*terms: Term) -> Blend:
    """A blend."""
    return Blend(terms)


def shell(line: str) -> Query:
    """Parses what a shell would hand over."""
    return parse(shlex.split(line))


A, B, C, D = (blend(words(letter)) for letter in "abcd")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dog", blend(words("dog"))),
        ("a dog  running", blend(words("a dog running"))),
        ("'  a   dog\n'", blend(words("a dog"))),
        ("雪山", blend(words("雪山"))),
        (
            "'2:golden retriever' + ./pool.jpg - people",
            blend(words("golden retriever", 2), file("./pool.jpg"), words("people", -1)),
        ),
        ("2:golden retriever", blend(words("golden retriever", 2))),
        ("0.5:cat - .25:tail", blend(words("cat", 0.5), words("tail", -0.25))),
        ("1e2:cat + 3.:dog", blend(words("cat", 100), words("dog", 3))),
        # precedence and parentheses
        ("a AND b OR c AND d", AnyOf((AllOf((A, B)), AllOf((C, D))))),
        ("a AND ( b OR c )", AllOf((A, AnyOf((B, C))))),
        ("a + b AND c - d", AllOf((blend(*A.terms, *B.terms), blend(*C.terms, words("d", -1))))),
        ("a OR b OR c", AnyOf((A, B, C))),
        ("( a AND b ) AND c", AllOf((A, B, C))),
        ("a OR ( b OR ( c OR d ) )", AnyOf((A, B, C, D))),
        ("( a AND ( b OR c OR b ) ) AND d", AllOf((A, AnyOf((B, C, B)), D))),
        ("( ( a ) )", A),
        ("a - ( b - 3:c )", blend(words("a"), words("b", -1), words("c", 3))),
        ("'dog AND snow'", AllOf((blend(words("dog")), blend(words("snow"))))),
        ("'a OR b AND c'", AnyOf((A, AllOf((B, C))))),
        ("'a dog AND' snow", AllOf((blend(words("a dog")), blend(words("snow"))))),
        # what is text inside a longer word
        ("'a man - and C++ (1998)'", blend(words("a man - and C++ (1998)"))),
        ("'SAND AND ORE'", AllOf((blend(words("SAND")), blend(words("ORE"))))),
        ("dog and snow or rain", blend(words("dog and snow or rain"))),
        ("'+ b'", blend(words("+ b"))),
        ("'+ AND b'", AllOf((blend(words("+")), B))),
        ("1:+ + 1:OR", blend(words("+"), words("OR"))),
        # times and shapes are no weights
        ("'12:30 train'", blend(words("12:30 train"))),
        ("16:9", blend(words("16:9"))),
        ("'2: 50 cent'", blend(words("50 cent", 2))),
        ("2.0:50 cent", blend(words("50 cent", 2))),
        ("nan: bread", blend(words("nan: bread"))),
        ("'note: 2 eggs'", blend(words("note: 2 eggs"))),
        # files
        ("./a.jpg", blend(file("./a.jpg"))),
        ("2:../a.jpg", blend(file("../a.jpg", 2))),
        ("'/mnt/black AND white.jpg'", blend(file("/mnt/black AND white.jpg"))),
        ("'dog AND ./my dog.jpg'", AllOf((blend(words("dog")), blend(file("./my dog.jpg"))))),
        ("file:///tmp/a%20b%23.jpg", blend(file("/tmp/a b#.jpg"))),
        ("file://localhost/tmp/a", blend(file("/tmp/a"))),
        ("FILE:a.jpg + 3:file:.b", blend(file("./a.jpg"), file("./.b", 3))),
        ("file:~/a", blend(file("./~/a"))),
        ("file:/%ff", blend(file("/\udcff"))),
        ("a.jpg", blend(words("a.jpg"))),
        ("and/or", blend(words("and/or"))),
        ("file: the x files", blend(words("file: the x files"))),
        # concepts
        ("'<rex>'", blend(concept("rex"))),
        ("'<rex> on the beach'", blend(concept("rex"), words("on the beach"))),
        (
            "'2:<rex> and <my-cat_2> at night' - '<ब्लू>'",
            blend(
                concept("rex", 2),
                concept("my-cat_2", 2),
                words("and at night", 2),
                concept("ब्लू", -1),
            ),
        ),
        ("'<rex>' on the beach", blend(concept("rex"), words("on the beach"))),
        ("'a<b>c'", blend(concept("b"), words("a c"))),
        ("'<cafe\u0301>'", blend(concept("café"))),
        ("'5 < 7'", blend(words("5 < 7"))),
        ("'a < b > c <> d'", blend(words("a < b > c <> d"))),
        # bytes that are no UTF-8
        ("\udcffa", blend(words("\ufffda"))),
        ("\udce9\udc9b\udcaa", blend(words("雪"))),
    ],
)
def test_reads(line: str, expected: Query) -> None:
    """Each line means what the README says."""
    assert shell(line) == expected
    assert parse(shlex.split(written(expected))) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the query is empty"),
        ("''", "the query is empty"),
        ("a + ' '", "the query is empty"),
        ("'\x07'", "the query is empty"),
        ("- a", 'before a - something to look for is missing; write that first, as in "dog" - "'),
        ("a AND - b", "before a - something"),
        ("a +", r"after \+ something to look for is missing"),
        ("a + - b", r"after \+ something"),
        ("AND b", "in front something to look for is missing; to look for that word, write it in"),
        ("a OR OR b", "after OR something to look for is missing; to look for that word"),
        ("( a", r"a \( is not closed; write a \)"),
        ("a )", r"a \) closes nothing"),
        ("( )", r"after \( something"),
        ("' + '", "in front something to look for is missing$"),
        ("a ( b )", r"before \( an operator is missing: \+ - AND or OR"),
        ("( a ) b", "before 'b' an operator is missing"),
        ("( a './b' )", "before './b' an operator is missing"),
        ("a ./b.jpg", "before './b.jpg' an operator is missing"),
        ("./b.jpg a", "before 'a' an operator is missing"),
        ("a 2:b", r"before '2:b' a \+ is missing"),
        ("'<a> 2:b'", r"before '2:b' a \+ is missing"),
        ("'<a> ./b'", r"before './b' a \+ is missing"),
        ("'<a>AND b'", r"before 'AND b' a \+ is missing"),
        ("( a AND b ) + c", r"\+ and - cannot join what has AND or OR in it"),
        ("a - ( b OR c )", r"\+ and - cannot join what has AND or OR in it"),
        ("0:a", 'a weight is above 0 and at most 1000, as in "2:dog", not 0$'),
        ("nan:a", "not nan$"),
        ("Infinity:a", "not inf$"),
        (f"{'9' * 400}:a", "not inf$"),
        ("1001:./a", "at most 1000"),
        ("2:", "nothing follows the weight '2:'"),
        ("'2: 3.5:a'", "'2: 3.5:a' has two weights"),
        ("a + -2:b", "a sign is a word of its own, before the weight: write - '2:b'"),
        ("http://x.org/a.jpg", "'http://x.org/a.jpg' is not on this machine, and anyseek downlo"),
        ("2:s3://x", "'s3://x' is not on this machine"),
        ("https:x", "is not on this machine"),
        ("file://server/a", "'server' in a file: URL is another machine; write file:///PATH"),
        ("file:///a%00b", r"'/a\\x00b' cannot be the path of a file"),
        ("file://localhost", "'' cannot be the path of a file"),
        ("'<a.b>'", "'a.b' cannot be the name of a concept: names have letters, digits, - and _"),
        ("'<golden retriever> in water'", "'golden retriever' cannot be the name of a concept"),
        (f"'<{'x' * 65}>'", "at most 64"),
        ("'<-x>'", "begin with no -"),
        (" + ".join(["a"] * (MAX_TERMS + 1)), "a query has 32 terms at most, not 33"),
        ("( " * (MAX_DEPTH + 1) + "a" + " )" * (MAX_DEPTH + 1), "parentheses go 8 deep at most"),
    ],
)
def test_refuses(line: str, message: str) -> None:
    """Each mistake is one line that says how to write it."""
    with pytest.raises(QueryError, match=message) as caught:
        shell(line)
    assert "\n" not in str(caught.value)


def test_limits_themselves_are_fine() -> None:
    """As many terms and parentheses as are allowed."""
    assert shell(" + ".join(["a"] * MAX_TERMS)) == blend(*[words("a")] * MAX_TERMS)
    assert shell("( " * MAX_DEPTH + "a" + " )" * MAX_DEPTH) == A
    assert shell("1000:a") == blend(words("a", 1000))
    assert shell(f"'<{'x' * 64}>'") == blend(concept("x" * 64))


def test_home_folders_are_put_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ~ that the shell left alone, as in 2:~/a, is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shell("'2:~/a b' + ~") == blend(file(f"{tmp_path}/a b", 2), file(str(tmp_path)))
    assert shell("~nobody-of-that-name/a") == blend(file("~nobody-of-that-name/a"))
    assert shell("'~5 dogs'") == blend(words("~5 dogs"))


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf"), float("-inf"), -1000.5])
def test_a_term_checks_its_weight(weight: float) -> None:
    """No term has a weight that means nothing, however it was made."""
    with pytest.raises(QueryError, match="a weight is above 0"):
        words("a", weight)


def test_a_blend_needs_something_to_look_for() -> None:
    """Only negative terms, or none at all, are no query."""
    for terms in ((), (words("a", -1), concept("b", -2))):
        with pytest.raises(QueryError, match="not only what to leave out"):
            Blend(terms)


def test_options_tilt_every_blend() -> None:
    """--add and --not reach each alternative, and count as terms."""
    both = with_options(shell("a OR b AND c"), ["2:<night> sky"], ["0.5:./d.jpg", "people"])
    more = concept("night", 2), words("sky", 2), file("./d.jpg", -0.5), words("people", -1)
    assert both == AnyOf(
        (
            blend(words("a"), *more),
            AllOf((blend(words("b"), *more), blend(words("c"), *more))),
        )
    )
    assert len(list(terms_of(both))) == 15
    assert with_options(A, [], []) == A
    with pytest.raises(QueryError, match="32 terms at most, not 33"):
        with_options(A, ["b"] * MAX_TERMS, [])


@pytest.mark.parametrize("text", ["a AND b", "+", "( "])
def test_options_take_one_term(text: str) -> None:
    """An operator in --add or --not is refused, with the option's name."""
    with pytest.raises(QueryError, match="--add takes one thing at a time"):
        with_options(A, [text], [])
    with pytest.raises(QueryError, match="--not takes one thing at a time"):
        with_options(A, [], [text])


def test_written_form() -> None:
    """The canonical form is what a person would type."""
    line = "'2:golden retriever' + ./pool.jpg - a AND '( x' OR '<rex>' AND '(' 1:- OR '2: 5' ')'"
    assert written(shell(line)) == line
    assert written(Blend((words("a", -1), words("b")))) == "b - a"


PIECES = [
    *"+ - ( ) AND OR a dog 2: 0.5: 12:30 nan: -1: ./ ~ / .. file: http:// < > <rex> % %41 ".split(),
    " ",
    "\n",
    "'",
    "\udcff",
    "\ud800",
    "é",
    "\0",
]
ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from(["+", "-", "AND", "OR", "(", ")", "a", "b", "2:c", "./d", "<e>"]),
        st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
        st.text(st.characters(), max_size=8),
    ),
    max_size=12,
)


def outcome(arguments: Sequence[str]) -> Query | str:
    """The query, or what is wrong with it."""
    try:
        return parse(arguments)
    except QueryError as error:
        return str(error)


@given(ARGUMENTS)
@example(["1:AND dog"])
@example(["1:AND", "dog"])
@example(["<a> +"])
@example(["<<a>a>"])
@example(["file:~"])
@example(["1e-320:a", "-", "b"])
def test_anything_parses_or_is_a_query_error(arguments: Sequence[str]) -> None:
    """Nothing but QueryError escapes, and what parses can be written and read again."""
    query = outcome(arguments)
    if isinstance(query, str):
        assert "\n" not in query
        return
    again = parse(shlex.split(written(query)))
    assert again == query
    assert written(again) == written(query)


OPERANDS = st.builds(
    Term,
    st.just(Kind.WORDS),
    st.sampled_from(["a", "dog house", "5", "50 cent", "12:30", "+", "(", "-", "x - y", "C++"]),
    st.floats(0.0, 1000.0, exclude_min=True),
) | st.builds(Term, st.just(Kind.FILE), st.sampled_from(["./a b", "/x", "../'"]))
BLENDS = st.lists(OPERANDS, min_size=1, max_size=3).map(lambda terms: Blend(tuple(terms)))
TREES = st.recursive(
    BLENDS,
    lambda parts: st.builds(
        lambda kind, some: kind(tuple(some)),
        st.sampled_from([AllOf, AnyOf]),
        st.lists(parts, min_size=2, max_size=3),
    ),
    max_leaves=6,
)


@given(TREES)
def test_every_tree_can_be_written(query: Query) -> None:
    """Its written form parses to it, but that parentheses within the same operator mean nothing."""
    read = parse(shlex.split(written(query)))
    assert chains(read) == chains(query)
    assert parse(shlex.split(written(read))) == read
    pending = [read]
    while pending:
        one = pending.pop()
        if not isinstance(one, Blend):
            assert type(one) not in map(type, one.parts)
            pending += one.parts


def chains(query: Query) -> object:
    """Gives what a tree means: its operands, with those of one operator in one list."""
    if isinstance(query, Blend):
        return query
    operands: list[object] = []
    for part in query.parts:
        meant = chains(part)
        if isinstance(meant, tuple) and meant[0] is type(query):
            operands += meant[1]
        else:
            operands.append(meant)
    return type(query), operands


@pytest.mark.parametrize("name", ["rex", "Rex-2_b", "雪", "หมู", "x" * 64])
def test_concept_names(name: str) -> None:
    """Letters and digits of any script, - and _."""
    assert concept_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "..", "a\n", "x" * 65, "<a>", "²"])
def test_no_concept_names(name: str) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(QueryError, match="cannot be the name of a concept"):
        concept_name(name)
