"""Templates are filled literally, averaged as the paper says, and checked when they are read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.phrasing import phrase
from retrieval.prompts import (
    PromptSet,
    bundled,
    choose,
    fitting,
    known,
    language,
    parse,
    resolve,
)
from retrieval.types import Modality
from tests.fakes import COLOURS, WordTower

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def test_the_ensemble_is_the_normalised_mean_of_unit_vectors() -> None:
    """Worked out by hand: one, two and three colours named, each to length 1, then averaged."""
    prompt = PromptSet("t", "", ("{query}", "blue {query}", "blue white {query}"))
    tower = WordTower()
    vector = phrase("red", prompt, tower).vector
    assert tower.embedded == 3
    names = list(COLOURS)
    renderings = [["red"], ["blue", "red"], ["blue", "white", "red"]]
    mean = [0.0] * len(names)
    for rendering in renderings:
        # the fake adds 0.001 everywhere, so that no vector is of length zero
        row = [1.001 if name in rendering else 0.001 for name in names]
        length = math.sqrt(sum(value * value for value in row))
        mean = [total + value / length / 3 for total, value in zip(mean, row, strict=True)]
    length = math.sqrt(sum(value * value for value in mean))
    assert vector.shape == (1, len(names))
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector[0], [value / length for value in mean], rtol=0, atol=1e-6)


def test_one_template_is_the_query_itself() -> None:
    """The plain set changes nothing."""
    tower = WordTower()
    (want,) = tower.embed(["a red and blue thing"])
    got = phrase("a red and blue thing", bundled()["plain"], tower).vector
    np.testing.assert_allclose(got[0], want, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "query",
    [
        "dog",
        "{query}",
        "{0}",
        "{}",
        "{query!r}",
        "%s %d %(x)s",
        "$query ${query}",
        "\\1 \\g<0>",
        "{",
    ],
)
def test_queries_are_put_in_literally(query: str) -> None:
    """Whatever a person types is what is looked for."""
    prompt = PromptSet("t", "", ("{query}", "a photo of {query}", "{query} {0} %s, {{x}}"))
    assert prompt.render(query) == [query, "a photo of " + query, query + " {0} %s, {{x}}"]


@given(query=st.text())
def test_any_query_stands_where_the_slot_was(query: str) -> None:
    """Nothing of the query or the template is lost."""
    (rendered,) = PromptSet("t", "", ("<<{query}>>",)).render(query)
    assert rendered == "<<" + query + ">>"


def test_sets_are_read_from_toml() -> None:
    """Names, descriptions and templates, in their order."""
    sets = parse(
        "[one]\nabout = 'it'\ntemplates = ['{query}', 'a {query}']\n"
        "['zwei drei']\ntemplates = ['{query}!']",
        "mine.toml",
    )
    assert sets == {
        "one": PromptSet("one", "it", ("{query}", "a {query}")),
        "zwei drei": PromptSet("zwei drei", "", ("{query}!",)),
    }
    assert list(sets) == ["one", "zwei drei"]
    assert parse("", "empty.toml") == {}
    assert sets["one"].source == "mine.toml"


def test_a_query_may_be_said_more_than_once() -> None:
    """In every template, with a space between."""
    (prompt,) = parse("[x]\nrepeat = 3\ntemplates = ['a {query}!']", "mine.toml").values()
    assert prompt.render("dog {query}") == ["a dog {query} dog {query} dog {query}!"]


def test_sets_have_modalities_and_languages() -> None:
    """Modalities are put in order; a set without English has its first language for the others."""
    sets = parse(
        "[a]\nmodalities = ['text', 'image']\n"
        "templates.zh = ['{query}的图']\ntemplates.en = ['a {query}']\n"
        "[b]\ntemplates = {ko = ['{query} 사진'], ja = ['{query}の写真']}",
        "mine.toml",
    )
    assert sets == {
        "a": PromptSet("a", "", ("a {query}",), (IMAGE, TEXT), {"zh": ("{query}的图",)}),
        "b": PromptSet("b", "", ("{query} 사진",), tuple(Modality), {"ja": ("{query}の写真",)}),
    }
    assert sets["a"].render("狗") == ["狗的图"]
    assert sets["a"].render("dog", like="狗") == ["dog的图"]
    assert sets["a"].render("狗", like="dog") == ["a 狗"]
    assert sets["a"].render("いぬ") == ["a いぬ"]
    assert sets["b"].render("犬と") == ["犬との写真"]
    assert sets["b"].render("dog") == ["dog 사진"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("dog", "en"),
        ("Brücke, ñandú, żółw", "en"),
        ("", "en"),
        ("🐕 42 %", "en"),
        ("狗", "zh"),
        ("BMW 汽车", "zh"),
        ("犬", "zh"),
        ("犬が走る", "ja"),
        ("カメラ", "ja"),
        ("개", "ko"),
        ("хлеб", "ru"),
        ("كلب", "ar"),
        ("สุนัข", "th"),
    ],
)
def test_a_script_tells_the_language(query: str, name: str) -> None:
    """One character of a script decides; kana before Han, since Japanese has both."""
    assert language(query) == name


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("templates = [", r"mine\.toml is not TOML: .*Invalid value"),
        ("bad = 3", r"prompt set \[bad\] in mine\.toml must be a table"),
        ("bad = ['{query}']", r"\[bad\] in mine\.toml must be a table"),
        ("[[bad]]\ntemplates = ['{query}']", r"\[bad\] in mine\.toml must be a table"),
        ("[bad]\nabout = 'x'", r"\[bad\] in mine\.toml needs a list of templates"),
        ("[bad]\ntemplates = []", r"\[bad\] in mine\.toml needs .* at least one"),
        ("[bad]\ntemplates = '{query}'", r"\[bad\] in mine\.toml needs a list"),
        ("[bad]\ntemplates = ['a dog']", r"\[bad\] in mine\.toml: the template 'a dog' must have"),
        ("[bad]\ntemplates = ['{query}', '{query} {query}']", r"\[bad\] in mine.*exactly once"),
        ("[bad]\ntemplates = ['{query}', 3]", r"\[bad\] in mine\.toml: the template 3 must"),
        ("[bad]\ntemplates = ['{query}']\nabout = 3", r"\[bad\] in mine\.toml: about must"),
        ("[bad]\ntemplates = ['{query}']\ntempaltes = []", r"unknown key 'tempaltes'"),
        ("[good]\ntemplates = ['{query}']\n[bad]\n", r"\[bad\] in mine\.toml"),
        ("[auto]\ntemplates = ['{query}']", r"\[auto\] in mine\.toml needs another name"),
        ("[bad]\ntemplates = {}", r"\[bad\] in mine\.toml needs a list of templates"),
        ("[bad]\ntemplates.zh = []", r"\[bad\] in mine\.toml, zh needs a list of templates"),
        ("[bad]\ntemplates.en = ['a']", r"\[bad\] in mine\.toml, en: the template 'a' must"),
        ("[bad]\ntemplates.tlh = ['{query}']", r"\[bad\] .* language 'tlh'; there are en, ja, ko"),
        *(
            (f"[bad]\ntemplates = ['{{query}}']\nrepeat = {repeat}", r"\[bad\] .* repeat must be")
            for repeat in ("0", "6", "true", "1.5", "'2'")
        ),
        ("[bad]\ntemplates = ['{query}']\nmodalities = 'image'", r"\[bad\] .* must be a list"),
        ("[bad]\ntemplates = ['{query}']\nmodalities = []", r"\[bad\] .* must be a list with at"),
        (
            "[bad]\ntemplates = ['{query}']\nmodalities = ['image', 'smell']",
            r"\[bad\] in mine\.toml has the unknown modality 'smell'; there are image, audio, text",
        ),
        ("[bad]\ntemplates = ['{query}']\nmodalities = [3]", r"\[bad\] .* unknown modality 3"),
        ("a = " + "[" * 5_000, r"mine\.toml is not TOML"),
    ],
)
def test_mistakes_name_the_file_and_the_set(toml: str, reason: str) -> None:
    """A person sees at once what to correct."""
    with pytest.raises(QueryError, match=reason):
        parse(toml, "mine.toml")


def test_every_bundled_set_is_valid() -> None:
    """The sets that `choose` needs are there, described, in English and Chinese, and once only."""
    sets = bundled()
    assert {"plain", "name", "photo"} <= set(sets)
    assert sets["plain"].templates == ("{query}",)
    assert len(sets["photo"].templates) == 7
    for name, prompt in sets.items():
        assert prompt.name == name
        assert prompt.about
        assert len(set(prompt.templates)) == len(prompt.templates)
        assert prompt.source == "bundled"
        if prompt.templates != ("{query}",):
            assert set(prompt.languages) == {"zh"}
            assert all(language(one) == "zh" for one in prompt.languages["zh"] if one != "{query}")
        for rendered in prompt.render("dög {0}"):
            assert rendered.count("dög {0}") == (2 if name == "name" else 1)


@pytest.mark.parametrize("target", list(Modality))
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("dog", "name"),
        ("red car", "name"),
        ("big red car", "plain"),
        ("a big red car", "plain"),
        ("Brücke", "name"),
        ("狗", "name"),
        ("红色汽车", "name"),
        ("一只红色汽车", "plain"),
        ("BMW 汽车", "name"),
    ],
)
def test_names_are_said_twice(query: str, name: str, target: Modality) -> None:
    """Sentences say themselves what they mean."""
    assert choose(query, target).name == name
    assert bundled()["name"].render("red car") == ["red car red car"]


# ---- asking for a set ----------------------------------------------------------------------------


def write(path: Path, **sets: str) -> Path:
    """Writes sets of one template each."""
    text = "".join(f"[{name}]\ntemplates = ['{one}']\n" for name, one in sets.items())
    path.write_text(text, "utf-8")
    return path


def test_sets_are_found_by_name(tmp_path: Path) -> None:
    """The file that is named goes before a person's own, and both before the bundled sets."""
    user = write(tmp_path / "user.toml", photo="u {query}", mine="u2 {query}")
    file = write(tmp_path / "file.toml", photo="f {query}", more="f2 {query}")
    assert resolve("photo") is bundled()["photo"]
    for name, templates, source in (
        ("photo", ("f {query}",), file),
        ("mine", ("u2 {query}",), user),
        ("more", ("f2 {query}",), file),
    ):
        found = resolve(name, file=file, user=user)
        assert found is not None
        assert (found.templates, found.source) == (templates, str(source))
    found = resolve("photo", user=user)
    assert found is not None
    assert found.templates == ("u {query}",)
    sets = known(user, None, file)
    assert list(sets) == [*bundled(), "mine", "more"]
    assert sets["photo"].templates == ("f {query}",)
    assert bundled()["photo"].source == "bundled"


def test_auto_is_the_choice_by_the_query(tmp_path: Path) -> None:
    """A broken file of one's own stops no search that does not need it, nor does a missing one."""
    (tmp_path / "broken.toml").write_text("[")
    assert resolve() is None
    assert resolve("auto", user=tmp_path / "broken.toml") is None
    assert resolve("photo", user=tmp_path / "none.toml") is bundled()["photo"]
    with pytest.raises(QueryError, match=r"broken\.toml is not TOML"):
        resolve("photo", user=tmp_path / "broken.toml")


def test_a_file_with_one_set_needs_no_name(tmp_path: Path) -> None:
    """Of several, one must be named."""
    found = resolve(file=write(tmp_path / "one.toml", x="an {query}"))
    assert found is not None
    assert found.name == "x"
    with pytest.raises(QueryError, match=r"two\.toml holds 2 prompt sets: x, y; say which"):
        resolve(file=write(tmp_path / "two.toml", x="{query}", y="{query}"))
    with pytest.raises(QueryError, match=r"none\.toml holds 0 prompt sets; say which"):
        resolve(file=write(tmp_path / "none.toml"))


def test_templates_are_a_set_of_their_own() -> None:
    """They are for everything that is searched, and nothing else may be asked for beside them."""
    found = resolve(templates=["a {query}", "{query} at night"])
    assert found == PromptSet("template", "as given", ("a {query}", "{query} at night"))
    with pytest.raises(QueryError, match=r"the template 'a sketch' must have \{query\} exactly"):
        resolve(templates=["{query}", "a sketch"])
    for more in ({"name": "photo"}, {"file": Path("x.toml")}):
        with pytest.raises(QueryError, match="templates replace the prompt set"):
            resolve(templates=["{query}"], **more)


def test_unknown_sets_are_named_with_the_nearest() -> None:
    """A person who mistypes a name reads the right one."""
    with pytest.raises(QueryError, match=r"no prompt set 'skech'; did you mean 'sketch'\? .*plain"):
        resolve("skech")
    with pytest.raises(QueryError, match=r"no prompt set '\?'; `anyseek prompts` lists them: auto"):
        resolve("?")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Missing, no text, a folder, far too long: each says so, on one line."""
    (tmp_path / "latin.toml").write_bytes(b"[x]\nabout = '\xe9'")
    (tmp_path / "long.toml").write_bytes(b"#" * 1_000_001)
    for name, reason in (
        ("no.toml", r"cannot read the prompt sets in .*no\.toml: No such file"),
        ("latin.toml", r"latin\.toml is not TOML: it is not UTF-8"),
        ("long.toml", r"long\.toml is no file of prompt sets: it has over 1000000 bytes"),
        ("", r"cannot read the prompt sets in .*: Is a directory"),
    ):
        with pytest.raises(QueryError, match=reason):
            resolve("photo", file=tmp_path / name)


def test_a_set_is_used_where_it_is_meant_for() -> None:
    """Elsewhere the query chooses, as it does where no set is given."""
    sketch = bundled()["sketch"]
    assert fitting("dog", IMAGE, sketch) is sketch
    assert fitting("dog", AUDIO, sketch) is choose("dog", AUDIO)
    assert fitting("dog", IMAGE, None) is bundled()["name"]
