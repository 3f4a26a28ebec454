"""Templates are filled literally, averaged as the paper says, and checked when they are read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import prompts
from retrieval.errors import QueryError
from retrieval.prompts import PromptSet, bundled, choose, parse
from retrieval.types import Modality
from tests.fakes import COLOURS, WordTower

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


def test_the_ensemble_is_the_normalised_mean_of_unit_vectors() -> None:
    """Worked out by hand: one, two and three colours named, each to length 1, then averaged."""
    prompt = PromptSet("t", "", ("{query}", "blue {query}", "blue white {query}"))
    tower = WordTower()
    vector = prompts.embed("red", prompt, tower)
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
    got = prompts.embed("a red and blue thing", bundled()["plain"], tower)
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
    ],
)
def test_mistakes_name_the_file_and_the_set(toml: str, reason: str) -> None:
    """A person sees at once what to correct."""
    with pytest.raises(QueryError, match=reason):
        parse(toml, "mine.toml")


def test_every_bundled_set_is_valid() -> None:
    """The sets that `choose` needs are there, described, and without repetition."""
    sets = bundled()
    assert {"plain", "photo"} <= set(sets)
    assert sets["plain"].templates == ("{query}",)
    assert len(sets["photo"].templates) == 7
    for name, prompt in sets.items():
        assert prompt.name == name
        assert prompt.about
        assert len(set(prompt.templates)) == len(prompt.templates)
        assert all(rendered.count("dög {0}") == 1 for rendered in prompt.render("dög {0}"))


@pytest.mark.parametrize(
    ("query", "target", "name"),
    [
        ("dog", IMAGE, "photo"),
        ("big red car", IMAGE, "photo"),
        ("a big red car", IMAGE, "plain"),
        ("Brücke", IMAGE, "photo"),
        ("dog", TEXT, "plain"),
        ("狗", IMAGE, "photo"),
        ("红色汽车", IMAGE, "photo"),
        ("一只狗在海边奔跑", IMAGE, "plain"),
    ],
)
def test_templates_are_for_names_of_things_in_pictures(
    query: str, target: Modality, name: str
) -> None:
    """Sentences say themselves what they mean, and texts are no photos."""
    assert choose(query, target).name == name
