"""Embeds the words with the bundled model: run it when the model or the words change.

python -m retrieval.vocabulary
"""

from __future__ import annotations

from retrieval.models import model
from retrieval.types import Modality
from retrieval.vocabulary import ship

if __name__ == "__main__":
    spec = model()
    ship(spec.space, spec.load().towers[Modality.TEXT])
