"""Towers of open_clip against open_clip itself, on checkpoints of random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers import checkpoint, hub, open_clip, open_clip_files, open_clip_tables
from retrieval.towers.device import Device
from retrieval.types import Modality
from tests.retrieval.open_clip_checkpoints import CONFIGS, make, reference

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    "a dog",
    "Two cats, asleep on the red sofa!",
    "",
    "雪山和狗 🐶",
    "fish &amp; chips " * 40,
    "läuft_Hund",
)
SIZES = ((64, 64), (100, 70), (33, 200), (160, 160), (31, 500), (20, 20))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for exports that the module's tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of every family."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: make(family, folder) for family in CONFIGS}


@pytest.fixture(autouse=True)
def _own_caches(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "ANYSEEK_ALLOW_PICKLE"):
        monkeypatch.delenv(name, raising=False)


def pictures() -> list[Image.Image]:
    """Noise over gradients, in shapes that are cropped, padded, enlarged and shrunk."""
    rng = np.random.default_rng(3)
    made = []
    for width, height in SIZES:
        slope = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
        noise = rng.integers(0, 56, (height, width, 3))
        made.append(Image.fromarray((slope + noise).astype(np.uint8)))
    return made


@pytest.mark.parametrize("family", CONFIGS)
def test_same_answers_as_open_clip(checkpoints: dict[str, Path], cache: Path, family: str) -> None:
    """Pixels, tokens and vectors are open_clip's, and the space is the one described."""
    folder = checkpoints[family]
    network, transform, tokenizer = reference(folder)
    told = open_clip.describe(f"local-dir:{folder}")
    encoder = open_clip.load(f"local-dir:{folder}", "cpu", cache=cache)
    assert (encoder.space, encoder.dim) == (told.space, told.dim)
    assert told.licence == "mit"
    assert told.modalities == (Modality.IMAGE, Modality.TEXT)
    assert told.size_bytes == (folder / "open_clip_model.safetensors").stat().st_size

    tower = encoder.towers[Modality.IMAGE]
    config = CONFIGS[family][1]
    mean = config.get("mean", [0.48145466, 0.4578275, 0.40821073])
    std = config.get("std", [0.26862954, 0.26130258, 0.27577711])
    prepared = [tower.prepare(picture) for picture in pictures()]
    seen = torch.stack([transform(picture) for picture in pictures()])
    restored = seen * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    expected = (restored * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(np.stack(prepared), expected)
    assert tower.side_px == max(prepared[0].shape[:2])

    with torch.inference_mode():
        images = torch.nn.functional.normalize(network.encode_image(seen), dim=-1).numpy()
        ids = tokenizer(list(TEXTS))
        texts = torch.nn.functional.normalize(network.encode_text(ids), dim=-1).numpy()
    given = tower.embed(prepared)
    assert given.dtype == np.float32
    assert (given * images).sum(axis=1).min() >= 0.9999
    text_tower = encoder.towers[Modality.TEXT]
    together = text_tower.embed([text_tower.prepare(text) for text in TEXTS])
    alone = np.concatenate([text_tower.embed([text]) for text in TEXTS])
    assert (together * texts).sum(axis=1).min() >= 0.9999
    assert (alone * texts).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)

    rebuilt = open_clip_files.find(f"local-dir:{folder}")
    folder_of_tokens = cache / "exports" / f"{told.space}-text"
    from retrieval.towers.clip_tokens import Tokens

    assert rebuilt.source == f"local-dir:{folder}"
    np.testing.assert_array_equal(Tokens(folder_of_tokens)(TEXTS), ids.numpy())


@pytest.mark.parametrize("family", ["vit", "siglip"])
def test_bfloat16(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    """Where torch computes in bfloat16 the vectors stay near."""
    folder = checkpoints[family]
    network, transform, _ = reference(folder)
    monkeypatch.setattr(open_clip, "choose", lambda asked: Device("cpu", "bfloat16", "a test"))
    tower = open_clip.load(f"local-dir:{folder}").towers[Modality.IMAGE]
    given = tower.embed([tower.prepare(picture) for picture in pictures()])
    with torch.inference_mode():
        seen = torch.stack([transform(picture) for picture in pictures()])
        expected = torch.nn.functional.normalize(network.encode_image(seen), dim=-1).numpy()
    assert (given * expected).sum(axis=1).min() >= 0.995
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)


def test_search_without_torch(checkpoints: dict[str, Path], cache: Path) -> None:
    """Once a text tower is exported, words become vectors without torch, whatever the tokenizer."""
    code = """
import sys
from retrieval.towers import open_clip as family
from pathlib import Path
for folder in sys.argv[2:]:
    encoder = family.load("local-dir:" + folder, cache=Path(sys.argv[1]))
    print(family.describe("local-dir:" + folder).space == encoder.space)
    print(encoder.towers["text"].embed(["a dog"]).shape[0])
heavy = ("torch", "open_clip", "transformers", "timm", "onnx", "huggingface_hub", "PIL")
print([name for name in heavy if name in sys.modules])
"""
    folders = [str(checkpoints[family]) for family in ("vit", "siglip", "multilingual")]
    for folder in folders:
        open_clip.load(f"local-dir:{folder}", cache=cache).towers[Modality.TEXT].embed(["a dog"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(cache), *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True", "1"] * 3 + ["[]"]


def test_damaged_export_is_made_again(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """An export that is cut short gives the same vectors once more."""
    source = f"local-dir:{checkpoints['vit']}"
    first = open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(TEXTS)
    (data,) = (tmp_path / "exports").glob("*-text/text.data")
    data.write_bytes(data.read_bytes()[:-100])
    again = open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(TEXTS)
    np.testing.assert_array_equal(first, again)


# ---- identity ------------------------------------------------------------------------------------


def changed(folder: Path, where: str, **values: Any) -> None:
    """Changes a section of a model's description."""
    path = folder / "open_clip_config.json"
    told = json.loads(path.read_text("utf-8"))
    told[where] |= values
    path.write_text(json.dumps(told), "utf-8")


def test_space_is_what_the_model_is(tmp_path: Path) -> None:
    """It follows the weights, the preprocessing and the tokenizer, and not the folder."""
    folder = make("siglip", tmp_path)
    first = open_clip.describe(f"local-dir:{folder}").space
    assert first.startswith("open_clip-test_vit-")
    assert len(first.rpartition("-")[2]) == 12
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_clip.describe(f"local-dir:{moved}").space == first
    spaces = {first}
    changed(moved, "preprocess_cfg", mean=[0.5, 0.5, 0.4])
    spaces.add(open_clip.describe(f"local-dir:{moved}").space)
    tokenizer = moved / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text("utf-8").replace("<unk>", "<odd>"), "utf-8")
    spaces.add(open_clip.describe(f"local-dir:{moved}").space)
    other = make("siglip", tmp_path / "other", seed=1)
    spaces.add(open_clip.describe(f"local-dir:{other}").space)
    assert len(spaces) == 4


def test_digest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256 of the content; remembered for large files; the hub's blobs bear it as their name."""
    import hashlib

    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * (1 << 20))
    expected = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert checkpoint.digest(weights, cache=tmp_path) == expected
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert checkpoint.digest(weights, cache=tmp_path) == expected
    monkeypatch.undo()
    weights.write_bytes(b"y" * (1 << 20))
    assert checkpoint.digest(weights, cache=tmp_path) != expected
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"large")
    link = tmp_path / "link"
    link.symlink_to(blob)
    assert checkpoint.digest(link) == "ab" * 32


# ---- what is refused -----------------------------------------------------------------------------


def test_weights_that_do_not_belong(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Cut short, of another architecture, of another size, or with a layer missing."""
    from safetensors.torch import load_file, save_file

    whole = checkpoints["vit"] / "open_clip_model.safetensors"
    folder = make("vit", tmp_path)
    weights = folder / "open_clip_model.safetensors"
    source = f"local-dir:{folder}"

    weights.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(ModelError, match="fetch it again"):
        open_clip.describe(source)
    weights.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(ModelError, match="no safetensors file"):
        open_clip.describe(source)

    tensors = load_file(whole)
    del tensors["ln_final.weight"]
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"does not belong .* Missing key"):
        open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(["a"])
    weights.write_bytes((checkpoints["resnet"] / weights.name).read_bytes())
    with pytest.raises(ModelError, match="does not belong"):
        open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(["a"])
    weights.write_bytes(whole.read_bytes())
    vision = CONFIGS["vit"][0]["vision_cfg"]
    changed(folder, "model_cfg", vision_cfg=vision | {"image_size": 64})
    with pytest.raises(ModelError, match=r"another architecture: visual\.positional"):
        open_clip.load(source, cache=tmp_path).towers[Modality.IMAGE].embed([])
    assert not list((tmp_path / "exports").glob("*-text"))


def test_pickles_only_if_asked(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle is refused; with the variable it is opened, but never run."""
    from safetensors.torch import load_file

    folder = make("vit", tmp_path)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    weights.unlink()
    pickled = folder / "open_clip_pytorch_model.bin"
    torch.save(tensors, pickled)
    source = f"local-dir:{folder}"
    with pytest.raises(ModelError, match="ANYSEEK_ALLOW_PICKLE=1"):
        open_clip.describe(source)
    monkeypatch.setenv("ANYSEEK_ALLOW_PICKLE", "1")
    given = open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(TEXTS)
    safe = open_clip.load(f"local-dir:{checkpoints['vit']}", cache=tmp_path)
    np.testing.assert_array_equal(given, safe.towers[Modality.TEXT].embed(TEXTS))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": tensors, "extra": Evil()}, pickled)
    with pytest.raises(ModelError, match="does not belong"):
        open_clip.load(source, cache=tmp_path).towers[Modality.TEXT].embed(["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("where", "values", "reason"),
    [
        ("model_cfg", {"vision_cfg": {"timm_model_name": "hf-hub:evil/x"}}, "elsewhere"),
        ("model_cfg", {"vision_cfg": None}, "describes no towers"),
        ("preprocess_cfg", {"std": [0, 1, 1]}, "makes no sense"),
        ("preprocess_cfg", {"mean": "grey"}, "makes no sense"),
        ("preprocess_cfg", {"resize_mode": "twist"}, "not known"),
        ("model_cfg", {"vision_cfg": {"image_size": 10**9}}, "makes no sense"),
    ],
)
def test_descriptions_that_make_no_sense(
    tmp_path: Path, where: str, values: dict[str, Any], reason: str
) -> None:
    """A description is checked before anything is made of it."""
    folder = make("vit", tmp_path)
    changed(folder, where, **values)
    with pytest.raises(ModelError, match=reason):
        open_clip.describe(f"local-dir:{folder}")


def test_tokenizer_options_are_few(tmp_path: Path) -> None:
    """A description cannot ask transformers to run what comes with a tokenizer."""
    folder = make("siglip", tmp_path)
    text = CONFIGS["siglip"][0]["text_cfg"]
    options = {"clean": "canonicalize", "trust_remote_code": True}
    changed(folder, "model_cfg", text_cfg=text | {"tokenizer_kwargs": options})
    with pytest.raises(ModelError, match="wants trust_remote_code"):
        open_clip.load(f"local-dir:{folder}", cache=tmp_path).towers[Modality.TEXT].embed(["a"])


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        ("ViT-B-32", ModelError, "ARCH/PRETRAINED"),
        ("ViT-Z-99/openai", ModelError, "no architecture 'ViT-Z-99'"),
        ("ViT-B-32/best", ModelError, "no weights 'best'.*laion2b_s34b_b79k"),
        ("ViT-B-32/laion2b_s34b_b79k", ModelMissingError, "`anyseek models pull ViT-B-32/laion2b"),
        ("hf-hub:laion/x", ModelMissingError, "`anyseek models pull hf-hub:laion/x`"),
        ("hf-hub:../../etc", ModelError, "no name on a hub"),
        ("local-dir:/nowhere", ModelMissingError, "no folder /nowhere"),
        ("ViT-B-32/./none.safetensors", ModelError, "there is no file"),
    ],
)
def test_sources_that_mean_nothing(source: str, kind: type[ModelError], reason: str) -> None:
    """Each says what to do next."""
    with pytest.raises(kind, match=reason):
        open_clip.describe(source)


def test_bare_weights_need_certain_preprocessing(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """A file alone is taken for what was always prepared alike, and refused otherwise."""
    file = tmp_path / "mine.safetensors"
    file.write_bytes((checkpoints["vit"] / "open_clip_model.safetensors").read_bytes())
    assert open_clip.describe(f"ViT-B-32/{file}").dim == 512
    for arch in ("ViT-B-16-SigLIP", "MobileCLIP-S1", "ViT-L-14", "ViT-H-14-CLIPA"):
        with pytest.raises(ModelError, match=r"local-dir:FOLDER"):
            open_clip.describe(f"{arch}/{file}")
    pickled = file.rename(tmp_path / "mine.pt")
    with pytest.raises(ModelError, match="is a pickle"):
        open_clip.describe(f"ViT-B-32/{pickled}")


# ---- the hub -------------------------------------------------------------------------------------


def put(root: Path, repository: str, files: dict[str, bytes]) -> None:
    """Lays files into a cache as ``huggingface_hub`` does."""
    import hashlib

    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    (folder / "blobs").mkdir()
    (folder / "snapshots" / "c0ffee").mkdir(parents=True)
    for name, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (folder / "snapshots" / "c0ffee" / name).symlink_to(blob)


@pytest.mark.parametrize("family", ["vit", "multilingual"])
def test_hub_cache(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A model in the hub's cache is the one that lies in a folder, in the same space."""
    from huggingface_hub import try_to_load_from_cache

    folder = checkpoints[family]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if family == "multilingual":  # its text tower is described in a repository of its own
        told = json.loads(files["open_clip_config.json"])
        told["model_cfg"]["text_cfg"]["hf_model_name"] = "made/text"
        files["open_clip_config.json"] = json.dumps(told).encode()
        put(tmp_path / "hub", "made/text", {"config.json": files.pop("config.json")})
    put(tmp_path / "hub", "made/clip", files)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = hub.cached("made/clip", "nothing", "open_clip_config.json")
    theirs = try_to_load_from_cache(
        "made/clip", "open_clip_config.json", cache_dir=tmp_path / "hub"
    )
    assert str(found) == theirs
    told_of = open_clip.describe("hf-hub:made/clip")
    if family == "vit":
        assert told_of.space == open_clip.describe(f"local-dir:{folder}").space
    given = open_clip.load("hf-hub:made/clip", cache=tmp_path).towers[Modality.TEXT].embed(TEXTS)
    local = open_clip.load(f"local-dir:{folder}", cache=tmp_path).towers[Modality.TEXT]
    np.testing.assert_allclose(given, local.embed(TEXTS), atol=1e-6)


def test_tags_are_open_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that is read from its source is the one that importing it gives."""
    import open_clip as theirs
    from open_clip.pretrained import _PRETRAINED

    assert {arch: open_clip_tables.pretrained(arch) for arch in _PRETRAINED} == _PRETRAINED
    for arch in ("ViT-B-32", "MobileCLIP-S1", "ViT-B-16-SigLIP2"):
        assert open_clip_tables.architecture(arch) == theirs.get_model_config(arch)


def test_pull_without_a_network(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what could not be reached; a model in a folder needs nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"hf-hub:made/clip cannot be fetched: made/clip was not"):
        open_clip.pull("hf-hub:made/clip")
    open_clip.pull(f"local-dir:{checkpoints['multilingual']}")
