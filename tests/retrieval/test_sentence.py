"""Models of sentence-transformers give the library's own vectors, and run no code of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.cache import cached
from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers import sentence
from retrieval.types import Modality, Vectors
from retrieval.vocabulary import vocabulary
from tests import checkpoints

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = ["a dog barks", "", "雪 rain", "the beach. " * 40, "rain"]
PROMPTS = {"query": "query: ", "passage": "passage: "}


def close(ours: Vectors, theirs: Any) -> None:
    """Checks shapes, lengths and directions."""
    assert ours.dtype == np.float32
    assert ours.shape == np.shape(theirs)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (ours * theirs).sum(1).min() >= 0.9999


def embedded(source: Path, cache: Path, *, asked: bool = False) -> Vectors:
    """Embeds the texts as passages, or as questions."""
    encoder = sentence.load(str(source), "cpu", cache=cache)
    if asked:
        encoder = sentence.asking(encoder)
    tower = encoder.towers[Modality.TEXT]
    return tower.embed([tower.prepare(text) for text in TEXTS])


@pytest.mark.parametrize(
    "kind",
    [
        {"pooling": "mean", "dense": 24},
        {"pooling": "cls"},
        {"pooling": ("max", "weightedmean"), "truncate_dim": 20},
        {"pooling": "lasttoken"},
    ],
    ids=["mean, dense", "cls", "two ways, cut", "last token"],
)
def test_texts(kind: dict[str, Any], tmp_path: Path) -> None:
    """Without prompts, both towers give what ``encode`` gives."""
    model = checkpoints.sentences(tmp_path / "model", **kind)
    theirs = model.encode(TEXTS, normalize_embeddings=True)
    told = sentence.describe(str(tmp_path / "model"))
    assert (told.dim, told.modalities) == (theirs.shape[1], (Modality.TEXT,))
    close(embedded(tmp_path / "model", tmp_path), theirs)
    close(embedded(tmp_path / "model", tmp_path, asked=True), theirs)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts(include_prompt: bool, tmp_path: Path) -> None:
    """Questions and passages have their prompts, counted in the mean or left out of it."""
    folder = tmp_path / "model"
    model = checkpoints.sentences(folder, prompts=PROMPTS, include_prompt=include_prompt)
    passages = model.encode(TEXTS, prompt_name="passage", normalize_embeddings=True)
    queries = model.encode(TEXTS, prompt_name="query", normalize_embeddings=True)
    assert (passages * queries).sum(1).min() < 0.999
    close(embedded(folder, tmp_path), passages)
    close(embedded(folder, tmp_path, asked=True), queries)
    encoder = sentence.load(str(folder), cache=tmp_path)
    towers = [one.towers[Modality.TEXT] for one in (encoder, sentence.asking(encoder))]
    assert len({getattr(tower, "identity") for tower in towers}) == 2  # noqa: B009
    assert sentence.asking(sentence.asking(encoder)).space == encoder.space


def test_default_prompt(tmp_path: Path) -> None:
    """A model with one prompt for everything puts it before everything."""
    folder = tmp_path / "model"
    model = checkpoints.sentences(folder, prompts={"all": "the rain: "}, default="all")
    theirs = model.encode(TEXTS, normalize_embeddings=True)
    close(embedded(folder, tmp_path), theirs)
    close(embedded(folder, tmp_path, asked=True), theirs)


def test_pictures_and_texts(tmp_path: Path) -> None:
    """A model with two ways in gives both their vectors, in one space."""
    folder = tmp_path / "model"
    model = checkpoints.pictures(folder)
    encoder = sentence.load(str(folder), "cpu", cache=tmp_path)
    assert set(encoder.towers) == {Modality.IMAGE, Modality.TEXT}
    assert encoder.dim == checkpoints.DIM
    tower = encoder.towers[Modality.IMAGE]
    assert tower.side_px == 32
    rng = np.random.default_rng(0)
    shapes = [(32, 32), (40, 64), (90, 33)]
    photos = [
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes
    ]
    ours = tower.embed([tower.prepare(photo) for photo in photos])
    close(ours, model.encode(photos, normalize_embeddings=True))
    assert float(ours[0] @ ours[1]) < 0.9999
    close(embedded(folder, tmp_path), model.encode(TEXTS, normalize_embeddings=True))


def test_caches_tell_prompts_apart(tmp_path: Path) -> None:
    """What is kept of a question is not given for a passage of the same words."""
    folder = tmp_path / "model"
    checkpoints.sentences(folder, prompts=PROMPTS)
    passages = sentence.load(str(folder), "cpu", cache=tmp_path)
    queries = sentence.asking(passages)
    for encoder in (queries, passages, queries):
        kept = cached(encoder, tmp_path / "texts").towers[Modality.TEXT]
        plain = encoder.towers[Modality.TEXT]
        assert (kept.embed(["rain"]) * plain.embed(["rain"])).sum() >= 0.9999
        words, vectors = vocabulary(encoder.space, plain, cache=tmp_path / "words")
        assert float(vectors[0] @ plain.embed([words[0]])[0]) >= 0.999


# ---- another text tower for the same space -------------------------------------------------------


def test_over(tmp_path: Path) -> None:
    """A text tower that belongs to a space stands in for its own; others do not."""
    checkpoints.pictures(tmp_path / "clip")
    student = checkpoints.sentences(tmp_path / "student", dense=checkpoints.DIM)
    clip = sentence.load(str(tmp_path / "clip"), "cpu", cache=tmp_path)
    source = str(tmp_path / "student")
    both = sentence.over(clip, source, aligned={source: [clip.model]}, cache=tmp_path)
    assert (both.space, both.dim) == (clip.space, clip.dim)
    assert both.towers[Modality.IMAGE] is clip.towers[Modality.IMAGE]
    tower = both.towers[Modality.TEXT]
    close(tower.embed(TEXTS), student.encode(TEXTS, normalize_embeddings=True))
    with pytest.raises(ModelError, match="not of st:"):
        sentence.over(clip, source, cache=tmp_path)
    with pytest.raises(ModelError, match="not of st:"):
        sentence.over(clip, source, aligned={source: ["st:another"]}, cache=tmp_path)
    checkpoints.sentences(tmp_path / "longer")
    longer = str(tmp_path / "longer")
    with pytest.raises(ModelError, match="32 numbers"):
        sentence.over(clip, longer, aligned={longer: [clip.model]}, cache=tmp_path)


def test_the_known_student() -> None:
    """The published multilingual student is known to belong to OpenAI's ViT-B/32 alone."""
    (known,) = sentence.ALIGNED.values()
    assert "open_clip:ViT-B-32-quickgelu/openai" in known
    assert all("laion" not in name for name in known)


# ---- what cannot be loaded -----------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A model that may be spoilt."""
    source = tmp_path_factory.getbasetemp() / "sentences-to-spoil"
    if not source.exists():
        checkpoints.sentences(source, dense=24)
    return Path(shutil.copytree(source, tmp_path / "copy"))


def rewrite(path: Path, change: Any) -> None:
    """Changes a JSON file in place."""
    table = json.loads(path.read_text("utf-8"))
    change(table)
    path.write_text(json.dumps(table), "utf-8")


@pytest.mark.parametrize(
    "kind",
    [
        "modeling_own.Transformer",
        "os.system",
        "sentence_transformers.util.import_from_string",
        "sentence_transformers.base.modules.Router",
        "sentence_transformers/../own.Pooling",
        "evil.sentence_transformers.Pooling",
    ],
)
def test_code_of_its_own(kind: str, copy: Path) -> None:
    """Classes outside the library, and those in it that do other things, are refused."""
    rewrite(copy / "modules.json", lambda rows: rows[1].update(type=kind))
    with pytest.raises(ModelError, match="which anyseek does not run"):
        sentence.describe(str(copy))


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "a\\..\\b", "C:/x"])
def test_paths_that_escape(place: str, copy: Path) -> None:
    """A module's folder lies within the model's."""
    rewrite(copy / "modules.json", lambda rows: rows[1].update(path=place))
    with pytest.raises(ModelError, match="outside of it"):
        sentence.describe(str(copy))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tokenizer_name_or_path": "someone/else"}, "from elsewhere"),
        ({"modality_config": {"text": {"method": "save_pretrained"}}}, "not run"),
        ({"modality_config": {"message": {"method": "forward"}}}, "in messages"),
        ({"modality_config": {"image": {"method": "forward"}}}, "does not embed texts"),
        ({"modality_config": [1]}, "damaged"),
        ({"transformer_task": "text-generation"}, "gives no vectors"),
    ],
)
def test_settings(settings: dict[str, Any], says: str, copy: Path) -> None:
    """Settings that call or fetch something else are refused."""
    rewrite(copy / "sentence_bert_config.json", lambda table: table.update(settings))
    with pytest.raises(ModelError, match=says):
        sentence.describe(str(copy))


def test_weights_that_are_not_there(copy: Path) -> None:
    """Pickles, cut files, adapters, missing tensors: each in one line."""
    space = sentence.describe(str(copy)).space
    weights = copy / "2_Dense" / "model.safetensors"
    data = weights.read_bytes()
    changed = bytearray(data)
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert sentence.describe(str(copy)).space != space
    weights.write_bytes(data[:-4])
    with pytest.raises(ModelError, match="cut short"):
        sentence.describe(str(copy))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match="ANYSEEK_ALLOW_PICKLE"):
        sentence.describe(str(copy))
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter"):
        sentence.describe(str(copy))


def test_a_half_model_is_not_loaded(copy: Path, tmp_path: Path) -> None:
    """A layer that is not in the file is not made up; the pooler, which nothing reads, may lack."""
    from safetensors.torch import load_file, save_file

    path = copy / "model.safetensors"
    weights = load_file(path)
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(kept, path, {"format": "pt"})
    assert embedded(copy, tmp_path).shape == (len(TEXTS), 24)
    del kept["encoder.layer.1.output.dense.weight"]
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"layer.1.output.dense.weight"):
        embedded(copy, tmp_path)


def test_missing_models(tmp_path: Path) -> None:
    """A name that was never pulled says how to, and a folder without modules what it lacks."""
    with pytest.raises(ModelMissingError, match="anyseek models pull st:some/model"):
        sentence.describe("some/model")
    with pytest.raises(ModelError, match=r"no modules.json"):
        sentence.describe(str(tmp_path))


COLD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "sentence_transformers", "onnx"}:
            raise RuntimeError("loads " + name)
sys.meta_path.insert(0, Guard())
from pathlib import Path
from retrieval.towers import sentence
from retrieval.types import Modality
encoder = sentence.asking(sentence.load(sys.argv[1], cache=Path(sys.argv[2])))
print(encoder.towers[Modality.TEXT].embed(["a dog barks"]).tobytes().hex())
"""


def test_cold_texts_import_no_torch(tmp_path: Path) -> None:
    """After the export, a new process embeds a question without torch or the library."""
    checkpoints.sentences(tmp_path / "model", prompts=PROMPTS)
    expected = embedded(tmp_path / "model", tmp_path, asked=True)[0]
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(tmp_path / "model"), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = np.frombuffer(bytes.fromhex(done.stdout.strip()), np.float32)
    assert float(found @ expected) >= 0.9999
