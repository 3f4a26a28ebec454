"""Models that others trained and published, as rows: what each is good for and what it costs.

Nothing here was measured by us. ``quality`` is recall at 1 from a caption to its picture among the
5,000 of COCO's test split, where somebody published it for these very weights; sizes are what a
download takes, to within a tenth; licences are those that the authors state for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.types import Modality

UNPUBLISHED = "not published here"

_OPEN_CLIP = "open_clip, docs/openclip_retrieval_results.csv"
_SIGLIP2 = "arXiv 2502.14786"


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that can be fetched.

    Attributes:
        name: What ``--model`` takes.
        family: Key of ``retrieval.models.FAMILIES``.
        source: What the family calls it.
        dim: Length of a vector.
        modalities: What it embeds.
        download_bytes: What fetching it costs.
        licence: Of the weights, in a few words.
        about: Why one would choose it.
        coco_r1: Caption to picture on COCO, recall at 1 in %; ``None`` where nobody published it.
        origin: Who published that.
        text: Text tower of sentence-transformers that takes the place of the model's own.
    """

    name: str
    family: str
    source: str
    dim: int
    modalities: tuple[Modality, ...]
    download_bytes: int
    licence: str
    about: str
    coco_r1: float | None = None
    origin: str = ""
    text: str = ""

    @property
    def quality(self) -> str:
        """The published figure, for people."""
        if self.coco_r1 is None:
            return UNPUBLISHED
        return f"COCO R@1 {self.coco_r1:.1f} % ({self.origin})"


_CLIP = (Modality.IMAGE, Modality.TEXT)
_CLAP = (Modality.AUDIO, Modality.TEXT)
_SENTENCES = (Modality.TEXT,)
_MB = 1_000_000

OFFERS: tuple[Offer, ...] = (
    Offer(
        "clip-b32",
        "open_clip",
        "ViT-B-32-256/datacomp_s34b_b86k",
        512,
        _CLIP,
        605 * _MB,
        "MIT",
        "pictures, English; the quickest of the good ones",
        39.9,
        _OPEN_CLIP,
    ),
    Offer(
        "siglip2-b16",
        "open_clip",
        "ViT-B-16-SigLIP2/webli",
        768,
        _CLIP,
        1_500 * _MB,
        "Apache-2.0",
        "pictures, many languages; the best of its size",
        52.1,
        _SIGLIP2,
    ),
    Offer(
        "dfn-l14",
        "open_clip",
        "ViT-L-14/dfn2b",
        768,
        _CLIP,
        1_710 * _MB,
        "Apple AMLR, research only",
        "pictures, English; large and slow without a GPU",
        48.6,
        _OPEN_CLIP,
    ),
    Offer(
        "mobileclip2-s0",
        "open_clip",
        "MobileCLIP2-S0/dfndr2b",
        512,
        _CLIP,
        300 * _MB,
        "Apple AMLR, research only",
        "pictures, English; made for phones",
    ),
    Offer(
        "mobileclip2-s2",
        "open_clip",
        "MobileCLIP2-S2/dfndr2b",
        512,
        _CLIP,
        398 * _MB,
        "Apple AMLR, research only",
        "pictures, English; made for phones, better and slower than S0",
    ),
    Offer(
        "clip-multilingual",
        "open_clip",
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        512,
        _CLIP,
        1_460 * _MB,
        "MIT",
        "pictures, a hundred languages",
        37.8,
        _OPEN_CLIP,
    ),
    Offer(
        "openai-b32-multilingual",
        "open_clip",
        "ViT-B-32/openai",
        512,
        _CLIP,
        1_150 * _MB,
        "MIT; text tower Apache-2.0",
        "pictures, fifty languages; OpenAI's first CLIP with a text tower that was taught to it",
        text="sentence-transformers/clip-ViT-B-32-multilingual-v1",
    ),
    Offer(
        "clap-htsat",
        "clap",
        "laion/clap-htsat-unfused",
        512,
        _CLAP,
        615 * _MB,
        "Apache-2.0",
        "sounds, English",
    ),
    Offer(
        "clap-general",
        "clap",
        "laion/larger_clap_general",
        512,
        _CLAP,
        776 * _MB,
        "Apache-2.0",
        "sounds, speech and music, English; larger",
    ),
    Offer(
        "minilm-l6",
        "sentence",
        "sentence-transformers/all-MiniLM-L6-v2",
        384,
        _SENTENCES,
        91 * _MB,
        "Apache-2.0",
        "texts, English; small",
    ),
    Offer(
        "minilm-multilingual",
        "sentence",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        384,
        _SENTENCES,
        480 * _MB,
        "Apache-2.0",
        "texts, fifty languages",
    ),
    Offer(
        "e5-small",
        "sentence",
        "intfloat/multilingual-e5-small",
        384,
        _SENTENCES,
        488 * _MB,
        "MIT",
        "texts, a hundred languages; made for questions and their answers",
    ),
)
