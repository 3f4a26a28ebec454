"""Where published models are found, and how they are fetched, against the hub's own library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.errors import ModelError
from retrieval.towers import checkpoint, hub
from tests.hub import COMMIT
from tests.hub import hub as serving

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 300_000,
    "pytorch_model.bin": b"a pickle",
    "notes.txt": b"not asked for",
}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache of a machine that reaches a hub, which has ``made/model``."""
    cache, model = tmp_path / "cache", tmp_path / "model"
    model.mkdir()
    for name, content in FILES.items():
        (model / name).write_bytes(content)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("ANYSEEK_ALLOW_PICKLE", raising=False)
    with serving({"made/model": model}) as (address, _):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield cache


def test_pull_and_find(served: Path, tmp_path: Path) -> None:
    """What is pulled is found; no pickle is pulled; progress only grows, up to all bytes."""
    told: list[tuple[int, int | None]] = []
    hub.pull("made/model", ("*.json", "*.safetensors", "*.bin"), lambda *now: told.append(now))
    folder = hub.find("made/model", "clap")
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert hub.cached("made/model", "notes.txt", "config.json") == folder / "config.json"
    assert hub.cached("made/model", "notes.txt") is None
    assert told[-1] == (300_002, 300_002)
    assert told == sorted(told)

    local = tmp_path / "local"
    local.mkdir()
    for name in ("config.json", "model.safetensors"):
        (local / name).write_bytes(FILES[name])
        digest = hashlib.sha256(FILES[name]).hexdigest()
        assert checkpoint.digest(folder / name) == checkpoint.digest(local / name) == digest


def test_what_the_hub_does_not_have(served: Path) -> None:
    """One line, whatever the network's libraries raise."""
    with pytest.raises(ModelError, match=r"made/other could not be pulled \(") as caught:
        hub.pull("made/other", ("*",), lambda *_: None)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="not a name on the hub"):
        hub.pull("../other", ("*",), lambda *_: None)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first variable that says something counts; an empty one says nothing."""
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name in names:
        monkeypatch.setenv(name, f"/{name}")
    expected = ("/HF_HUB_CACHE", "/HUGGINGFACE_HUB_CACHE", "/HF_HOME/hub")
    for name, place in zip(names, (*expected, "/XDG_CACHE_HOME/huggingface/hub"), strict=True):
        assert hub.hub_cache() == Path(place)
        monkeypatch.setenv(name, "")
    assert hub.hub_cache() == Path("~/.cache/huggingface/hub").expanduser()


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\ntags:\n- clip\nlicense: apache-2.0\n---\n# A\n", "apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n---\n", "unknown"),
        ("---\ntags: x\n---\nlicense: mit\n", "unknown"),
        ("license: mit\n", "unknown"),
    ],
)
def test_licence(card: str, expected: str, tmp_path: Path) -> None:
    """It is the one in the head of the card, and nothing that the text says."""
    path = tmp_path / "README.md"
    path.write_bytes(card.encode())
    assert checkpoint.licence(path) == expected
    assert checkpoint.licence(tmp_path / "none") == checkpoint.licence(None) == "unknown"


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"shape": [Infinity], "data_offsets": [0, 4]}}',
        b'{"a": {"shape": [1], "data_offsets": [0]}}',
        b'{"a": {"shape": 1, "data_offsets": [0, 4]}}',
        b"[1]",
        b"[" * 100_000,
    ],
)
def test_headers_that_are_none(header: bytes, tmp_path: Path) -> None:
    """Whatever stands where a header should be is refused in one line."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match="no safetensors file"):
        checkpoint.tensors(path)
