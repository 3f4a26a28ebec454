"""What the bundled model finds, measured through the files that are shipped; prints JSON.

    python tests/benchmarks/quality.py --data DIR [--stamps DIR]

``--data`` holds ``flickr8k/captions.tsv`` and ``flickr8k/images/``; only its split ``dev`` is read.
``--stamps`` is the folder ``/usr/share/tuxpaint/stamps`` of Debian's ``tuxpaint-stamps-default``,
whose pictures the model has never seen. All figures are percentages unless they say otherwise.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import prompts
from retrieval.learn.data import read_captions, read_picture
from retrieval.towers import bundled
from retrieval.towers.use import Use
from retrieval.types import Modality, Tower, Vectors

Embed = Callable[[Sequence[str]], Vectors]

THINGS = {
    "en": "dog,cat,horse,car,bicycle,boat,beach,mountain,snow,child,baby,football,tree,flower,"
    "water,street,bird,house,woman with a hat,man on a motorcycle,swimming pool,guitar,bus,train,"
    "girl,boy,fire,bridge,camera,sheep",
    "zh": "狗,猫,马,汽车,自行车,船,海滩,山,雪,孩子,婴儿,足球,树,花,水,街道,鸟,房子,戴帽子的女人,"
    "骑摩托车的男人,游泳池,吉他,公共汽车,火车,女孩,男孩,火,桥,照相机,绵羊",
    "de": "Hund,Katze,Pferd,Auto,Fahrrad,Boot,Strand,Berg,Schnee,Kind,Baby,Fußball,Baum,Blume,"
    "Wasser,Straße,Vogel,Haus,Frau mit Hut,Mann auf einem Motorrad,Schwimmbad,Gitarre,Bus,Zug,"
    "Mädchen,Junge,Feuer,Brücke,Kamera,Schaf",
    "fr": "chien,chat,cheval,voiture,vélo,bateau,plage,montagne,neige,enfant,bébé,football,arbre,"
    "fleur,eau,rue,oiseau,maison,femme avec un chapeau,homme sur une moto,piscine,guitare,bus,"
    "train,fille,garçon,feu,pont,appareil photo,mouton",
}
"""The same thirty things in four languages."""

CHINESE = ("一张{query}的照片", "一张{query}的图片", "{query}的特写照片", "照片里有{query}")
"""Templates in Chinese."""

KINDS = {
    "airplane": r"airplane|\bjet\b|raptor",
    "apple": r"apple\.",
    "ball": r"ball\.",
    "bus": r"\bbus\b",
    "butterfly": r"butterfly\.",
    "car": r"\bcar\b|beetle|sedan|limousine",
    "cat": r"\bcat\b|kitten",
    "cow": r"\bcow\b|\bbull\b|yak|bison|zebu",
    "deer": r"\bdeer|\bdoe\b|wapiti|caribou|reindeer",
    "dog": r"\bdog\b|puppy|dingo",
    "elephant": "elephant",
    "fish": r"fish\b",
    "flower": "flower|rose|daffodil|hibiscus",
    "frog": r"\bfrog|toad",
    "guitar": "guitar|violin|cello",
    "hat": r"\bhat\b|fedora|sombrero|cap\.",
    "horse": r"\bhorse|pony",
    "house": r"\bhouse|home|cottage",
    "monkey": "chimp|gorilla|tamarin|monkey",
    "pig": r"\bpig|boar",
    "rabbit": "rabbit|bunny",
    "sheep": r"\bsheep|\bram\b|lamb",
    "ship": r"\bship|\bboat|sailboat",
    "train": r"\btrain|locomotive",
    "tree": r"\btree",
    "truck": r"\btruck",
}
"""Single nouns and what a stamp's English caption says when it shows one; birds by their folder."""

PHOTOGRAPHS = (
    *("animals", "food", "household", "clothes", "town", "plants", "hobbies", "space"),
    *("seasonal", "sports", "vehicles", "people"),
)


def hits(found: NDArray[np.int64]) -> dict[str, float]:
    """Gives R@1, R@5 and R@10 from the place of the first match, counted from 0."""
    return {f"r{k}": round(100 * float((found < k).mean()), 1) for k in (1, 5, 10)}


def retrieval(texts: Vectors, images: Vectors, owner: NDArray[np.int64]) -> dict[str, Any]:
    """Measures both directions: caption to picture, and picture to any of its captions."""
    cosines = texts @ images.T
    own = cosines[np.arange(len(texts)), owner]
    to_image = (cosines > own[:, None]).sum(1)
    best = np.full(len(images), -2.0, np.float32)
    np.maximum.at(best, owner, own)
    to_text = (cosines > best[None, :]).sum(0)
    return {"text_to_image": hits(to_image), "image_to_text": hits(to_text)}


def sentences(texts: Vectors, owner: NDArray[np.int64]) -> float:
    """R@10 of a caption among all others: is one of the same picture found?"""
    cosines = texts @ texts.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argpartition(-cosines, 10, axis=1)[:, :10]
    return round(100 * float((owner[nearest] == owner[:, None]).any(1).mean()), 1)


def through(templates: Sequence[str], words: Sequence[str], embed: Embed) -> Vectors:
    """Embeds words through templates: mean of the unit rows, normalised."""
    rows = [embed([one.replace("{query}", word) for word in words]) for one in templates]
    mean = np.mean(rows, axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def zero_shot(
    images: Vectors, labels: Sequence[str], embed: Embed, templates: Sequence[str]
) -> dict[str, float]:
    """Accuracy of the nearest name, bare and through templates."""
    names = sorted(set(labels))
    truth = np.array([names.index(label) for label in labels])
    result = {"names": float(len(names)), "pictures": float(len(labels))}
    for way, used in (("bare", ("{query}",)), ("templates", templates)):
        nearest = (images @ through(used, names, embed).T).argmax(1)
        result[way] = round(100 * float((nearest == truth).mean()), 1)
    return result


def overlap(
    gallery: Vectors, embed: Embed, templates: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Share of the ten nearest pictures that a language has in common with plain English."""

    def nearest(language: str) -> list[set[int]]:
        used = templates.get(language, ("{query}",))
        vectors = through(used, THINGS[language].split(","), embed)
        return [set(row) for row in np.argsort(-(vectors @ gallery.T), axis=1)[:, :10].tolist()]

    english = nearest("en")
    return {
        language: round(
            float(
                np.mean([len(a & b) / 10 for a, b in zip(english, nearest(language), strict=True)])
            ),
            3,
        )
        for language in THINGS
        if language != "en"
    }


def stamps(folder: Path) -> tuple[list[Path], list[str], list[Path], list[str]]:
    """Lists stamps by their English caption: photographs of nouns, and stamps of plain kinds."""
    fine: list[Path] = []
    nouns: list[str] = []
    coarse: list[Path] = []
    kinds: list[str] = []
    for path in sorted(folder.rglob("*.png")):
        text = path.with_suffix(".txt")
        place = path.relative_to(folder).as_posix()
        if not text.exists() or re.search("mirror|flip|symbols|roadsign", place):
            continue
        caption = text.read_text(encoding="utf-8").split("\n")[0].strip()
        noun = re.fullmatch(
            r"(?:An?|Some|The|A pair of|A bunch of|A head of|Two) ([A-Za-z -]+)\.", caption
        )
        photograph = not re.search("cartoon|plastic", place) and place.startswith(PHOTOGRAPHS)
        if noun and photograph and len(noun[1].split()) <= 2:
            fine.append(path)
            nouns.append(noun[1].lower())
        found = [kind for kind, words in KINDS.items() if re.search(words, caption.lower())]
        if "animals/birds/" in place:
            found.append("bird")
        if len(found) == 1 and len(caption) < 60:
            coarse.append(path)
            kinds.append(found[0])
    return fine, nouns, coarse, kinds


def embedded(tower: Tower, pictures: Sequence[NDArray[np.uint8]]) -> Vectors:
    """Embeds squashed pictures in batches of 16."""
    prepared = [tower.prepare(Image.fromarray(one)) for one in pictures]
    rows = [tower.embed(prepared[start : start + 16]) for start in range(0, len(prepared), 16)]
    return np.concatenate(rows)


def tiny(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduces a picture to 32x32, as in CIFAR-10, and enlarges it again."""
    image = Image.fromarray(picture)
    small = image.resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stamps", type=Path)
    options = parser.parse_args()

    encoder = bundled.load()
    image_tower = encoder.towers[Modality.IMAGE]
    text_tower = encoder.towers[Modality.TEXT]

    def embed(texts: Sequence[str]) -> Vectors:
        parts = [
            text_tower.embed([text_tower.prepare(text) for text in texts[start : start + 500]])
            for start in range(0, len(texts), 500)
        ]
        return np.concatenate(parts)

    folder = options.data / "flickr8k"
    dev = read_captions(folder / "captions.tsv")["dev"]
    pictures = [read_picture(folder / "images" / one.image) for one in dev]
    captions = [text for one in dev for text in one.captions]
    owner = np.repeat(np.arange(len(dev)), [len(one.captions) for one in dev])
    began = time.perf_counter()
    images = embedded(image_tower, pictures)
    rate = len(pictures) / (time.perf_counter() - began)
    texts = embed(captions)
    sets = prompts.bundled()
    photo = sets["photo"].templates
    report: dict[str, Any] = {
        "space": encoder.space,
        "dim": encoder.dim,
        "bytes": bundled.size_bytes(),
        "pictures_per_s_one_thread": round(rate, 1),
        "flickr8k_dev": retrieval(texts, images, owner),
        "flickr8k_dev_through_templates": retrieval(through(photo, captions, embed), images, owner),
        "caption_to_caption_r10": sentences(texts, owner),
        "caption_to_caption_r10_sentence_encoder_alone": sentences(Use().embed(captions), owner),
    }
    gallery = images
    if options.stamps:
        fine, nouns, coarse, kinds = stamps(options.stamps)
        fine_pictures = [read_picture(path) for path in fine]
        coarse_pictures = [read_picture(path) for path in coarse]
        fine_images = embedded(image_tower, fine_pictures)
        gallery = np.concatenate([images, fine_images])
        small = embedded(image_tower, [tiny(one) for one in coarse_pictures])
        report["zero_shot"] = {
            "nouns": zero_shot(fine_images, nouns, embed, photo),
            "kinds": zero_shot(embedded(image_tower, coarse_pictures), kinds, embed, photo),
            "kinds_at_32_pixels": zero_shot(small, kinds, embed, photo),
        }
    every = dict.fromkeys(THINGS, photo)
    report["top10_overlap_with_english"] = {
        "plain": overlap(gallery, embed, {}),
        "english_through_templates": overlap(gallery, embed, {"en": photo}),
        "all_through_english_templates": overlap(gallery, embed, every),
        "chinese_through_chinese_templates": overlap(gallery, embed, {"en": photo, "zh": CHINESE}),
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
