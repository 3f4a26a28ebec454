"""CLAP models: sounds and texts in one space (Wu et al. 2023, arXiv 2211.06687).

Checkpoints are those of transformers' ``ClapModel``. Sounds go through torch; texts through an
export, see ``frozen_text``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers import checkpoint, clap_mel, frozen_text, hub
from retrieval.towers.described import Described, Progress
from retrieval.towers.device import CPU, Batches, Device, choose
from retrieval.types import Encoder, Modality, Tower, Vectors

FAMILY = "clap"
WINDOW_S = 10  # what ``retrieval.sounds`` cuts; a model that hears less would not hear all of it
BATCH = 8  # windows at once: 10 s are 1,024 patches of four by four
PREPARATION = 1  # of sounds, in numpy: another would give other vectors
PATTERNS = ("*.json", "*.safetensors", "*.bin", "merges.txt", "vocab.txt", "README.md")
_TEXTS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


def describe(source: str) -> Described:
    """Tells what a CLAP model is, from its files alone.

    Args:
        source: A folder, or ``ORG/NAME`` on the hub.

    Raises:
        ModelMissingError: If it was never pulled.
        ModelError: If it is another model, or its files are not whole.
    """
    folder = hub.find(source, FAMILY)
    config, weights = _config(folder), checkpoint.weights(folder)
    _, path = _recipe(folder)
    told = [folder / name for name in _TEXTS if (folder / name).is_file()]
    return Described(
        space=f"clap-{checkpoint.identity([*weights, *told, path], PREPARATION)}",
        dim=config["projection_dim"],
        modalities=(Modality.AUDIO, Modality.TEXT),
        size_bytes=sum(file.stat().st_size for file in weights),
        licence=checkpoint.licence(folder / "README.md"),
    )


def load(source: str, device: str | None = None, *, cache: Path | None = None) -> Encoder:
    """Makes the encoder; weights are read when a tower is first used.

    Args:
        source: As for ``describe``.
        device: Where sounds are embedded; see ``retrieval.towers.device``.
        cache: Holds the export of the text tower; the platform's cache folder by default.

    Raises:
        ModelError: As ``describe``.
    """
    folder, told = hub.find(source, FAMILY), describe(source)
    made, _ = _recipe(folder)
    towers: dict[Modality, Tower] = {
        Modality.AUDIO: AudioTower(folder, made, device),
        Modality.TEXT: frozen_text.TextTower(
            f"{told.space}-text", functools.partial(_freeze, folder), cache=cache
        ),
    }
    return Encoder(f"{FAMILY}:{source}", told.space, told.dim, towers)


def pull(source: str, progress: Progress) -> None:
    """Fetches a model from the hub; see ``hub.pull``."""
    hub.pull(source, PATTERNS, progress)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = checkpoint.read_object(path)
    if config.get("model_type") != "clap":
        raise ModelError(f"{path} is of a model of type {config.get('model_type')!r}, not of CLAP")
    config.setdefault("projection_dim", 512)
    if not isinstance(config["projection_dim"], int) or not 0 < config["projection_dim"] <= 65_536:
        raise ModelError(f"{path} is damaged (projection_dim): pull the model again")
    return config


def _recipe(folder: Path) -> tuple[clap_mel.Recipe, Path]:
    """Reads how sounds are prepared; newer checkpoints keep it with the processor."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        table: Any = checkpoint.read_object(path)
    else:
        path = folder / "processor_config.json"
        table = checkpoint.read_object(path).get("feature_extractor")
        if not isinstance(table, dict):
            raise ModelError(f"there is no preprocessor_config.json in {folder}")
    made = clap_mel.recipe(table, path)
    if made.samples < WINDOW_S * made.rate_hz:
        raise ModelError(f"{path} is of a model that hears less than {WINDOW_S} s at once")
    return made, path


class AudioTower:
    """Sounds into the space."""

    def __init__(self, folder: Path, made: clap_mel.Recipe, device: str | None = None) -> None:
        """Names the weights; they are read at the first ``embed``."""
        self._folder = folder
        self._made = made
        self._asked = device
        self._device: Device = CPU
        self._model: Any = None
        self._batches = Batches(BATCH)
        self._lock = threading.Lock()

    @property
    def side_px(self) -> None:
        """Moot for sounds."""
        return None

    @property
    def rate_hz(self) -> int:
        """Samples a second that the model was trained on."""
        return self._made.rate_hz

    def prepare(self, content: NDArray[np.float32]) -> NDArray[np.float32]:
        """Makes the spectrogram of a window, the same each time: ``(frames, mels)`` float32."""
        return clap_mel.log_mel(clap_mel.filled(content, self._made), self._made)

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Embeds spectrograms: ``(n, dim)`` float32, unit rows, in order."""
        with self._lock:
            if self._model is None:
                device = choose(self._asked)
                self._model = _model(self._folder).to(device.name, device.dtype())
                self._device = device
            return self._batches.run(batch, self._forward)

    def _forward(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        import torch

        mels = torch.from_numpy(np.stack(batch))[:, None]
        with torch.inference_mode():
            if self._made.fused:
                # four times the same, as for every sound that is not longer than the model hears
                mels = mels.expand(-1, 4, -1, -1)
            longer = torch.zeros((len(batch), 1), dtype=torch.bool)
            found = self._model.get_audio_features(
                input_features=mels.to(self._device.name, self._device.dtype()),
                is_longer=longer.to(self._device.name),
            )
            vectors = torch.nn.functional.normalize(pooled(found).float(), dim=-1)
        return np.asarray(vectors.cpu().numpy(), np.float32)


def pooled(found: Any) -> Any:
    """Gives the vectors that transformers found: bare before version 5, beside more since."""
    return getattr(found, "pooler_output", found)


def _model(folder: Path) -> Any:
    """Reads the whole model, on the CPU in float32; a tensor that is not there is an error."""
    try:
        from transformers import ClapModel
        from transformers.utils import logging
    except ImportError:
        raise ModelError("CLAP needs more libraries: pip install 'anyseek[clap]'") from None
    import torch

    _config(folder)
    safe = checkpoint.weights(folder)[0].suffix == ".safetensors"
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: Any = ClapModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=safe,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # the libraries' errors have no common base class
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"the model in {folder} cannot be loaded ({said})") from error
    model, info = loaded
    checkpoint.complete(folder, info)
    return model.eval()


def _freeze(folder: Path, into: Path) -> None:
    """Exports the text tower."""
    model = _model(folder)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"the tokenizer in {folder} cannot be loaded ({said})") from error
    import torch

    class Network(torch.nn.Module):
        """Tokens to unit rows."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            """Gives ``(n, dim)``."""
            found = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
            return torch.nn.functional.normalize(pooled(found), dim=-1)

    text = model.config.text_config
    # positions are counted from the padding's number on: RoBERTa's first is pad + 1
    longest = text.max_position_embeddings - (text.pad_token_id or 0) - 1
    frozen_text.freeze(
        into,
        Network(),
        tokenizer,
        inputs=("input_ids", "attention_mask"),
        max_tokens=min(tokenizer.model_max_length, longest),
    )
