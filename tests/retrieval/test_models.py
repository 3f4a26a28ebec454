"""Names of models, the catalogue, and families of models that may be here or not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval import models
from retrieval.catalogue import OFFERS, UNPUBLISHED
from retrieval.errors import ModelError, ModelMissingError
from retrieval.models import BUNDLED, FAMILIES, Named, model, named
from retrieval.towers.bundled import WEIGHTS
from retrieval.types import Modality
from tests.fakes import DIM, ColourFamily

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ColourFamily:
    """A family that takes the place of all others."""
    made = ColourFamily(tmp_path / "cache", {"a/heard": (Modality.AUDIO, Modality.TEXT)})
    for module in FAMILIES.values():
        monkeypatch.setitem(sys.modules, module, made)
    return made


def test_the_catalogue_is_sound() -> None:
    """Names are unique and resolve to themselves; figures have an origin; sizes are of models."""
    assert len({offer.name for offer in OFFERS}) == len(OFFERS)
    assert len({(offer.family, offer.source, offer.text) for offer in OFFERS}) == len(OFFERS)
    for offer in OFFERS:
        assert named(offer.name) == Named(offer.name, offer.family, offer.source, offer)
        assert offer.family in FAMILIES
        assert 50_000_000 < offer.download_bytes < 5_000_000_000
        assert (offer.coco_r1 is None) == (offer.quality == UNPUBLISHED) == (not offer.origin)
        assert Modality.TEXT in offer.modalities


def test_open_clip_has_what_the_catalogue_names() -> None:
    """Architectures, weights and dimensions are those of open_clip, whose import takes long."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    table = (folder / "pretrained.py").read_text("utf-8")
    for offer in OFFERS:
        if offer.family == "open_clip":
            architecture, weights = offer.source.split("/")
            config = json.loads((folder / "model_configs" / f"{architecture}.json").read_text())
            assert config["embed_dim"] == offer.dim
            row = table[table.index(f'\n    "{architecture}": ') + 1 :].split(": ", 1)[1]
            shared = re.match(r"_\w+", row)
            if shared is not None:
                row = table[table.index(f"\n{shared[0]} = dict(") :].split("\n)", 1)[0]
            else:
                row = row.split('\n    "', 1)[0]
            assert f"{weights}=" in row


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("clap:ORG/NAME", Named("clap:ORG/NAME", "clap", "ORG/NAME")),
        ("st:ORG/NAME", Named("st:ORG/NAME", "sentence", "ORG/NAME")),
        ("hf-hub:ORG/NAME", Named("hf-hub:ORG/NAME", "open_clip", "hf-hub:ORG/NAME")),
        ("RN50/openai", Named("RN50/openai", "open_clip", "RN50/openai")),
    ],
)
def test_names_say_what_to_load(name: str, want: Named) -> None:
    """Prefixes that are ours alone are taken off; open_clip's stay."""
    assert named(name) == want
    assert not want.in_folder


def test_one_model_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the catalogue has is called so; folders are named from the root."""
    assert named("ViT-B-32-256/datacomp_s34b_b86k").name == "clip-b32"
    assert named("clap:laion/clap-htsat-unfused").name == "clap-htsat"
    assert named("st:intfloat/multilingual-e5-small").name == "e5-small"
    assert named("ViT-B-32/openai").name == "ViT-B-32/openai"  # not with another text tower
    assert named() == named("anyseek-1") == Named("anyseek-1", BUNDLED, str(WEIGHTS))
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named("m") == Named(str(tmp_path / "m"), BUNDLED, str(tmp_path / "m"))
    for prefix, source in (("clap", "{}"), ("st", "{}"), ("local-dir", "local-dir:{}")):
        found = named(f"{prefix}:m")
        assert found.name == f"{prefix}:{tmp_path / 'm'}"
        assert found.source == source.format(tmp_path / "m")
        assert found.in_folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip-32b", "did you mean clip-b32"),
        ("anyseek", "did you mean anyseek-1"),
        ("xyz", "`anyseek models` lists them"),
        ("clap:", "`anyseek models` lists them"),
        ("other:thing", "`anyseek models` lists them"),
        ("../gone", "there is no folder with a model at ../gone"),
        ("a/b/c", "there is no model named 'a/b/c'"),
        ("", "there is no model named ''"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str) -> None:
    """One line, with near names where there are some."""
    with pytest.raises(ModelError, match=message):
        named(name)


def test_folders_of_other_families_are_recognised(tmp_path: Path) -> None:
    """The error says with which prefix they are named."""
    (tmp_path / "modules.json").touch()
    with pytest.raises(ModelError, match=f"name it st:{tmp_path}"):
        named(str(tmp_path))


def test_a_model_that_is_not_here(family: ColourFamily) -> None:
    """It says how to get it; afterwards it is here, and loads under its own name."""
    with pytest.raises(ModelMissingError, match=r"`anyseek models pull clap:a/heard`"):
        model("clap:a/heard")
    told: list[tuple[int, int]] = []
    models.pull(named("clap:a/heard"), lambda done, total: told.append((done, total)))
    assert told == [(0, 0), (100, 100)]
    spec = model("clap:a/heard")
    assert (spec.name, spec.space, spec.dim) == ("clap:a/heard", "colours of a/heard", DIM)
    assert spec.modalities == (Modality.AUDIO, Modality.TEXT)
    assert family.loaded == []
    encoder = spec.load()
    assert (encoder.model, encoder.space) == ("clap:a/heard", spec.space)
    assert models.place(named("clap:a/heard")) == str(family.place("a/heard"))


def test_listing_tells_what_is_here(family: ColourFamily) -> None:
    """The bundled model first; size and space of what is here are the real ones."""
    models.pull(named("clap-htsat"), lambda done, total: None)
    rows = {row.name: row for row in models.models()}
    assert list(rows) == ["anyseek-1", *(offer.name for offer in OFFERS)]
    here = rows["clap-htsat"]
    assert (here.here, here.size_bytes) == (True, 100)
    assert here.space == "colours of laion/clap-htsat-unfused"
    away = rows["clap-general"]
    assert (away.here, away.size_bytes, away.space) == (False, 776_000_000, None)
    assert family.loaded == []


def test_folders_are_not_fetched(tmp_path: Path) -> None:
    """They are here already, or damaged, which no download mends."""
    with pytest.raises(ModelError, match="there is nothing to fetch"):
        models.pull(named(f"st:{tmp_path}"), lambda done, total: None)


def test_a_cache_that_cannot_be_written(
    family: ColourFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the place and the reason."""

    def refuse(source: str, progress: object) -> None:
        raise PermissionError(13, "Permission denied", "/cache/hub")

    monkeypatch.setattr(family, "pull", refuse)
    message = r"cannot fetch clap-htsat: Permission denied; see that /cache/hub can be written"
    with pytest.raises(ModelError, match=message):
        models.pull(named("clap-htsat"), lambda done, total: None)


def test_a_copy_is_a_model_of_its_own(tmp_path: Path) -> None:
    """A folder as `anyseek learn` writes it is found by its path."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in WEIGHTS.iterdir():
        if path.suffix != ".toml":
            (folder / path.name).symlink_to(path)
    shutil.copy(WEIGHTS / "model.toml", folder)
    text = (folder / "model.toml").read_text("utf-8").replace("anyseek-1", "other-2")
    (folder / "model.toml").write_text(text, "utf-8")
    spec = model(str(folder))
    assert spec.name == str(folder)
    assert spec.space.startswith("other-2")
    assert spec.calibrations == model().calibrations


def test_listing_imports_no_model_library() -> None:
    """Nor does finding a model that is not here."""
    code = """
import sys
from retrieval.models import models, named
models(); named("clip-b32"); named("st:a/b")
heavy = {"torch", "open_clip", "transformers", "sentence_transformers", "onnxruntime", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
