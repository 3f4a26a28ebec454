"""Pictures and sounds of the same things out of three Debian packages, to measure by.

    python tests/benchmarks/tri_modal.py --tuxpaint DIR --gcompris DIR --openclipart DIR --out DIR
        [--esc50 DIR]

The first three folders hold the unpacked packages ``tuxpaint-stamps-default``,
``gcompris-qt-data`` and ``openclipart-png`` (``dpkg-deb -x PACKAGE.deb DIR``). Reading them needs
PySide6-Essentials (Qt's resource bundles and SVG) and soundfile. Nothing here asks a model, and the
same packages give the same files each time.

``pairs.tsv`` (name, picture, sound) has one row for every kind of thing

* that a package itself gives both a picture and a sound: files of one folder with one stem, or
  joined by the program that the package belongs to (``JOINED``);
* whose sound lasts at least 0.3 s and is not silent, is not spoken or sung (names, letters,
  numbers, ``*_desc*``, ``NOT_THE_THING``), comes from the thing shown and not from something
  that it stands for, and is not the very recording that the package gives to another kind.

Kinds are told apart as a child would: dog and puppy are one, donkey and horse are two (``KINDS``).
Of several candidates for a kind a photograph goes before a drawing, then the first by name.

``mixed.tsv`` (query, modality, path, fold) has forty classes of ESC-50 that can be seen, each with
the first five pictures whose titles name the thing (``QUERIES``), fewer where the packages hold
fewer; photographs go before drawings, a picture belongs to one query only, and ``WRONG`` lists what
a title promised but the picture did not keep. With ``--esc50`` (the folder of ``esc50.csv``) it
lists the clips of those classes too, all folds, their paths relative to that folder.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import io
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

SHORTEST_SECONDS = 0.3
SILENCE = 0.005
"""A sound whose loudest sample stays below this is silent (four stamps come with such a file)."""

PER_QUERY = 5
LARGEST_PIXELS = 16_000_000
SMALLEST_SIDE = 48
VISIBLE = 0.03
"""Share of a picture that must not be near white."""

KINDS = {
    "animals/mammals/bovines/cow_white": "cow",
    "animals/mammals/bovines/bull": "cow",
    "animals/mammals/bovines/ram": "sheep",
    "animals/mammals/bovines/sheep_lamb": "sheep",
    "animals/mammals/bovines/mountaingoat": "goat",
    "animals/mammals/camel/dromedary": "camel",
    "animals/mammals/deer/doe": "deer",
    "animals/mammals/deer/caribou": "reindeer",
    "animals/mammals/pig_golden": "pig",
    "animals/mammals/pig_golden2": "pig",
    "animals/mammals/apes/chimp": "chimpanzee",
    "animals/birds/drake": "duck",
    "animals/birds/gander": "goose",
    "animals/birds/hen": "chicken",
    "animals/birds/heron_greatblue_flying": "heron",
    "animals/birds/tucan": "toucan",
    "animals/insects/xanthia": "moth",
    "food/fruit/apple_red": "apple",
    "hobbies/camera_35mm": "camera",
    "hobbies/music/percussion/cymbal_crash": "cymbal",
    "hobbies/music/percussion/drum_tomtom_floor": "tom-tom drum",
    "hobbies/music/percussion/drumkit": "drum kit",
    "household/Washing-machine": "washing machine",
    "household/arttools/scissors_small_closed": "scissors",
    "household/arttools/scissors_small_open": "scissors",
    "household/dishes/glass": "glass of water",
    "household/rubberduck": "rubber duck",
    "naturalforces/lightningbolt": "lightning",
    "seasonal/halloween/bat_left": "bat",
    "seasonal/halloween/blackcat": "cat",
    "vehicles/emergency/firetruck": "fire engine",
    "vehicles/ship/cartoon/bathyscape": "submarine",
    "explore_world_music/africa": "hand drums",
    "explore_world_music/australia": "didgeridoo",
    "explore_world_music/orchestra": "orchestra",
    "explore_world_music/japan": "taiko drums",
    "explore_farm_animals/chicken": "chicken",
    "instruments/flute_traversiere": "flute",
    "instruments/horn": "French horn",
    "railroad/loco0": "train",
    "traffic/car1": "car",
    "planegame/tuxhelico": "helicopter",
}
"""Kinds of things whose file is not called so; elsewhere the file's stem is the kind."""

NOT_THE_THING = {
    "military/final-roll-call": "a bugle's tune; the picture is a memorial",
    "seasonal/christmas/hard_candy": "somebody saying mmm",
    "seasonal/christmas/santahat": "sleigh bells; the picture is a hat",
    "seasonal/halloween/ghost": "made up: there is no such thing to be heard",
    "seasonal/halloween/spider": "made up: one does not hear a spider",
    "seasonal/hanukkah/dreydl-gimmel": "the letter's spoken name",
    "seasonal/hanukkah/dreydl-hay": "the letter's spoken name",
    "seasonal/hanukkah/dreydl-nun": "the letter's spoken name",
    "seasonal/hanukkah/dreydl-shin": "the letter's spoken name",
    "space/apollo_lander": "speech over the radio",
    "town/flags/checkeredflag": "cars that pass; the picture is a flag",
    "town/roadsigns/no_uturn": "traffic; the picture is a sign",
    "town/roadsigns/xing_ped": "traffic; the picture is a sign",
    "town/roadsigns/xing_school": "laughter; the picture is a sign",
    "explore_world_music/america": "a band; the instruments shown have their own sounds",
    "explore_world_music/ireland": "one fiddle; the picture is a band on a dark stage",
    "explore_world_music/italy": "sung",
    "explore_world_music/mexico": "an anthem, sung",
    "explore_world_music/middleeast": "sung",
    "clickgame/bubble": "the package bambam has the same recording, so it may have been trained on",
}
"""Sounds that are words, not of the thing in the picture, or to be met with elsewhere."""

JOINED = (
    ("explore_farm_animals/chicken.webp", "explore_farm_animals/chickens.ogg"),  # AnimalLevels
    ("explore_world_music/orchestra.webp", "explore_world_music/beethoven.ogg"),  # board1.qml
    ("planegame/tuxhelico.svg", "guessnumber/helicopter.wav"),  # Helico.qml
    ("railroad/loco0.svg", "railroad/sounds/train.wav"),  # Railroad.qml
    ("traffic/car1.svg", "traffic/car.wav"),  # Car.qml
)
"""Picture and sound that a program of GCompris shows and plays for one thing."""

QUERIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dog": (r"dogs?|puppy", ("dog",)),
    "rooster": (r"rooster|gallo|cockerel", ("rooster",)),
    "pig": (r"pigs?", ("pig",)),
    "cow": (r"cows?|calf|cattle|mucca", ("cow",)),
    "frog": (r"frogs?|rana\d*", ("frog",)),
    "cat": (r"cats?|kittens?", ("cat",)),
    "hen": (r"hen|chickens?|gallina", ("hen",)),
    "insects": (r"bees?|fl(?:y|ies)|hoverfly|mosquito|hornet|(?:flying )?wasp", ("insects",)),
    "sheep": (r"sheep|lamb|ram|pecora", ("sheep",)),
    "crow": (r"crow|raven", ("crow",)),
    "rain": (r"rain|rainy", ("rain",)),
    "sea waves": (r"sea|waves?|beach\d?|ocean", ("sea_waves",)),
    "crackling fire": (
        r"fires?(?! (?:truck|engine|alarm|diamond))|flames?|fireplace",
        ("crackling_fire",),
    ),
    "crickets": (r"grasshopper|crickets?(?! (?:ball|bat))|cicada", ("crickets",)),
    "chirping birds": (
        r"(?:little )?birds?|blackbird|lark|cuckoo|(?:blue|red)birds?|swallow|sparrow|robin",
        ("chirping_birds",),
    ),
    "water drops": (r"drops?\d?|droplets?|tap|faucet", ("water_drops",)),
    "thunderstorm": (r"lightning(?: ?bolt)?|thunder|storms?", ("thunderstorm",)),
    "toilet flush": (r"toilets?|wc", ("toilet_flush",)),
    "crying baby": (r"baby(?= (?:boy|girl))|(?:lovely |^)baby$", ("crying_baby",)),
    "footsteps": (r"foot ?prints?|shoes?|boots?|foot|feet", ("footsteps",)),
    "brushing teeth": (r"tooth ?brush|tooth|teeth|dente", ("brushing_teeth",)),
    "drinking": (r"coffee|espresso|tea(?! butterfly)|mug|soft drink", ("drinking_sipping",)),
    "door": (r"doors?|a gate", ("door_wood_knock", "door_wood_creaks")),
    "computer mouse": (r"mouse\d?(?! (?:pointer|button))", ("mouse_click",)),
    "computer keyboard": (r"(?<!baby )keyboard|keyb\d", ("keyboard_typing",)),
    "opening a can": (r"(?:pop|beer|tin) can|lattina", ("can_opening",)),
    "washing machine": (r"washing machine|lavatrice", ("washing_machine",)),
    "vacuum cleaner": (r"va[cv]uum cleaner", ("vacuum_cleaner",)),
    "clock": (r"clock(?: ?face)?|orologio", ("clock_alarm", "clock_tick")),
    "breaking glass": (r"(?<!sand )(?<!ing )glass|(?<!baby )bottle", ("glass_breaking",)),
    "helicopter": (r"helicopter|helico|copter|elicottero", ("helicopter",)),
    "chainsaw": (r"chainsaw|motosega", ("chainsaw",)),
    "siren": (r"fire ?(?:truck|engine)|police car|ambulance|ambulans", ("siren",)),
    "car horn": (r"car\d*|sportscar|beetle|taxi", ("car_horn",)),
    "engine": (r"(?<!fire )truck\d?|tractor|motor ?bike|motorcycle\d?", ("engine",)),
    "train": (r"trains?|locomotives?|loco\d?", ("train",)),
    "church bells": (r"church|bells?|cathedral|chiesa", ("church_bells",)),
    "airplane": (r"(?:air)?planes?\d?|aircraft\d?|747|jet", ("airplane",)),
    "fireworks": (r"fireworks?", ("fireworks",)),
    "hand saw": (r"saw|hand ?saw|sega", ("hand_saw",)),
}
"""Query, the words that a title must hold, ESC-50's names of the class."""

WRONG: dict[str, dict[str, str]] = {
    "dog": {"openclipart/animals/cani_e_gatti_cat_and_do_01.png": "more cats than dogs"},
    "pig": {"tuxpaint/people/body_parts/hair_manga.svg": "plaited hair"},
    "cat": {"openclipart/animals/cani_e_gatti_cat_and_do_01.png": "dogs as well"},
    "frog": {
        f"openclipart/{folder}/2_dead_frogs_lumen_desig_01.png": "two dead frogs and a caption"
        for folder in ("animals", "animals/amphibian", "signs_and_symbols/hazard")
    },
    "sea waves": {
        "tuxpaint/animals/mammals/aquatic/sea_lion.png": "an animal",
        "tuxpaint/vehicles/ship/cartoon/bathyscape.png": "a submarine",
        "openclipart/recreation/toys/beach_ball_01.png": "a ball",
    },
    "crackling fire": {
        "gcompris/louis-braille/fireplace.webp": "a man in a workshop; no fire to be seen",
    },
    "water drops": {"tuxpaint/plants/flowers/flower9.png": "a flower; its drops are specks"},
    "toilet flush": {"openclipart/signs_and_symbols/wc_romus_01.png": "two letters on a sign"},
    "crying baby": {
        "openclipart/people/my_lovely_baby_enrique_m_01.png": "a woman in a ball gown",
        "openclipart/people/my_lovely_baby_enrique_m_02.png": "a woman in a ball gown",
    },
    "brushing teeth": {"gcompris/clickgame/teeth.webp": "frames of a swimming fish"},
    "door": {
        "gcompris/balancebox/door.svg": "a hole for a rolling ball",
        "gcompris/balancebox/door_closed.svg": "a hole for a rolling ball",
    },
    "computer mouse": {
        "gcompris/baby_mouse/baby_mouse.svg": "a duck and arrows",
        "gcompris/lang/words_sample/mouse.webp": "an animal",
        "tuxpaint/animals/mammals/rodents/mouse.png": "an animal",
    },
    "clock": {
        "gcompris/clockgame/clock_bg.svg": "a piece of a clock's face",
        "gcompris/clockgame/clock_setter.svg": "a piece of a clock's face",
        "gcompris/clockgame/clock_zones.svg": "a piece of a clock's face",
    },
    "breaking glass": {
        "gcompris/babymatch/bottle.svg": "a plastic bottle",
        "gcompris/babymatch/glass.svg": "a flat blue cylinder",
    },
    "siren": {"tuxpaint/vehicles/emergency/sedan_police.png": "stickers without the car"},
    "car horn": {
        "gcompris/lang/words_sample/beetle.webp": "an animal",
        "tuxpaint/vehicles/emergency/sedan_police.png": "stickers without the car",
    },
    "engine": {"tuxpaint/vehicles/wheel_tractor.png": "a wheel"},
    "train": {"tuxpaint/vehicles/locomotive/cartoon/trainSign.png": "a road sign"},
    "church bells": {"tuxpaint/clothes/bellbottoms.svg": "trousers"},
    "hand saw": {"tuxpaint/military/vehicles/ww2_german_gun.png": "a tank that saw service"},
}
"""Pictures whose title matches a query but that show something else, and what."""

NOT_PICTURES = re.compile(
    r"/(?:icons|babyshapes|smilies|flags|gradients|buttons|alphabets|\w*tangram|geography|paintings|details"
    r"|map_symbols|roadsigns|aiga-symbols|smileys|geo-country|word)/|_mirror\.|_background\.|/core/"
)
"""Sets of symbols, and pieces of pictures."""


ORIGINS = ("tuxpaint", "gcompris", "openclipart")
COLLECTION = re.compile(
    r"^clipart by |cliparts$|^etiquette icons|collection|^svg road|^aiga|^map s"
)
"""Titles in openclipart's files that name the collection that a picture came with."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a package.

    Attributes:
        package: ``tuxpaint``, ``gcompris`` or ``openclipart``.
        name: its path inside the package, shortened, with forward slashes.
        read: gives its content.
        title: what the package calls it, words parted by blanks.
    """

    package: str
    name: str
    read: Callable[[], bytes]
    title: str = ""

    @property
    def stem(self) -> str:
        """The path without the suffix."""
        return str(PurePosixPath(self.name).with_suffix(""))

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def photograph(self) -> bool:
        """Whether the package means it as a photograph: its drawings are SVG or ``cartoon``."""
        if self.package == "tuxpaint":
            return self.suffix == ".png" and "/cartoon/" not in self.name
        words_drawn = self.name.startswith("lang/")
        return self.package == "gcompris" and self.suffix == ".webp" and not words_drawn

    @property
    def order(self) -> tuple[int, str, str]:
        """Photographs first by name; then the drawings, stamps before icons and clip art."""
        rank = 0 if self.photograph else 1 + ORIGINS.index(self.package)
        return (rank, self.package, self.name)


def words(text: str) -> str:
    """A title or file name as lower-case words: ``Blue_Vacuum-Cleaner2`` is the words it is of."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    return " ".join(re.findall(r"[a-z0-9'’]+", spaced.lower()))


def titled(title: str, pattern: str) -> bool:
    """Whether the words of a title hold one that the pattern means."""
    return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", words(title)) is not None


def png_title(content: bytes) -> str:
    """The text chunk ``Title`` of a PNG, or nothing."""
    at = 8
    while at + 8 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        at += 12 + size
        key, _, value = body.partition(b"\0")
        if kind == b"IDAT" or key != b"Title":
            continue
        if kind == b"tEXt":
            return value.decode("latin-1")
        if kind == b"zTXt":
            return zlib.decompress(value[1:]).decode("latin-1")
        if kind == b"iTXt":
            text = value[2:].split(b"\0", 2)[2]
            return (zlib.decompress(text) if value[0] else text).decode("utf-8")
    return ""


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def qt(module: str) -> Any:
    """A module of Qt, loaded by those who need it."""
    return importlib.import_module(f"PySide6.Qt{module}")


def tuxpaint(folder: Path) -> Iterator[Item]:
    """The stamps: pictures with their English descriptions, and sounds."""
    stamps = folder / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*")):
        if path.suffix.lower() not in {".png", ".svg", ".ogg", ".wav"} or "_desc" in path.name:
            continue
        text = path.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
        name = path.relative_to(stamps).as_posix()
        first = re.split(r"(?<=[.!?—])\s", lines[0])[0] if lines else ""
        yield Item("tuxpaint", name, path.read_bytes, f"{path.stem} | {first}")


def openclipart(folder: Path) -> Iterator[Item]:
    """The pictures with the titles in their files, or their names where many share a title."""
    root = folder / "usr/share/openclipart/png"
    paths = sorted(root.rglob("*.png"))
    titles = [png_title(path.read_bytes()) for path in paths]
    shared = Counter(titles)
    for path, title in zip(paths, titles, strict=True):
        named = title and shared[title] <= 15 and not COLLECTION.search(title.lower())
        own = title if named else path.stem
        yield Item("openclipart", path.relative_to(root).as_posix(), path.read_bytes, own)


def gcompris(folder: Path) -> Iterator[Item]:
    """Every picture and sound inside the resource bundles, as ACTIVITY/FILE."""
    core = qt("Core")
    found: dict[str, Item] = {}
    for bundle in sorted((folder / "usr/share/gcompris-qt/rcc").glob("*.rcc")):
        root = f"/{bundle.stem}"
        if not core.QResource.registerResource(str(bundle), root):
            raise OSError(f"Qt cannot read {bundle}")
        inside = core.QDirIterator(f":{root}", core.QDirIterator.IteratorFlag.Subdirectories)
        while inside.hasNext():
            path = PurePosixPath(inside.next())
            if path.suffix.lower() not in {".webp", ".svg", ".ogg", ".wav"}:
                continue
            file = core.QFile(str(path))
            file.open(core.QIODevice.OpenModeFlag.ReadOnly)
            content = bytes(file.readAll().data())
            file.close()
            parts = [part for part in path.parts[1:] if part not in SHORTENED]
            name = "/".join(dict.fromkeys([bundle.stem, *parts]))
            found[name] = Item("gcompris", name, partial(bytes, content), path.stem)
        core.QResource.unregisterResource(str(bundle), root)
    yield from (found[name] for name in sorted(found))


SHORTENED = {"gcompris", "src", "activities", "resource", "resources", "animals", "music", "images"}
"""Folders inside the bundles that tell nothing."""


def drawn(content: bytes, side: int = 512) -> bytes:
    """An SVG as PNG on white, its longer side so many pixels."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    core, gui = qt("Core"), qt("Gui")
    if gui.QGuiApplication.instance() is None:
        gui.QGuiApplication([])
    svg = qt("Svg").QSvgRenderer(core.QByteArray(content))
    size = svg.defaultSize()
    scale = side / max(size.width(), size.height(), 1)
    width, height = max(1, round(size.width() * scale)), max(1, round(size.height() * scale))
    image = gui.QImage(width, height, gui.QImage.Format.Format_RGB32)
    image.fill(0xFFFFFFFF)
    painter = gui.QPainter(image)
    svg.render(painter, core.QRectF(0, 0, width, height))
    painter.end()
    buffer = core.QBuffer()
    buffer.open(core.QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")
    return bytes(buffer.data().data())


def flattened(content: bytes, side: int = 512) -> bytes:
    """A picture with transparency as an opaque PNG, cut to what is drawn.

    It lies on white, or on black where white would swallow nearly all of it.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        if not opened.has_transparency_data:
            return content
        picture = opened.convert("RGBA")
    drawing = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0)
    picture = picture.crop(drawing.getbbox())
    picture.thumbnail((side, side))
    for ground in ("white", "black"):
        whole = Image.new("RGBA", (picture.width + 16, picture.height + 16), ground)
        whole.alpha_composite(picture, (8, 8))
        grey = whole.convert("L").histogram()
        if sum(grey[:192]) >= VISIBLE * whole.width * whole.height:
            break
    buffer = io.BytesIO()
    whole.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def fit_to_hear(content: bytes) -> str | None:
    """A digest of the recording, or nothing where it is too short or silent."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    if len(samples) < SHORTEST_SECONDS * rate or abs(samples).max() < SILENCE:
        return None
    return hashlib.sha256(samples.tobytes()).hexdigest()


def kind_of(picture: Item) -> str:
    """The kind of thing that a picture with a sound shows."""
    name = PurePosixPath(picture.stem).name.replace("_", " ")
    return KINDS.get(picture.stem, name)


def pair_up(items: Iterable[Item]) -> list[tuple[str, Item, Item]]:
    """Kind, picture and sound of everything that has both, one row for each kind."""
    by_name = {(item.package, item.name): item for item in items}
    chosen: dict[str, tuple[Item, Item]] = {}
    joined: list[tuple[Item, Item]] = []
    for (package, _), sound in by_name.items():
        if sound.suffix not in {".ogg", ".wav"} or sound.name.startswith("symbols/"):
            continue
        for suffix in (".webp", ".png", ".svg"):
            picture = by_name.get((package, sound.stem + suffix))
            if picture is not None:
                joined.append((picture, sound))
    for shown, played in JOINED:
        one, other = by_name.get(("gcompris", shown)), by_name.get(("gcompris", played))
        if one is not None and other is not None:
            joined.append((one, other))

    heard: dict[str, set[str]] = {}
    candidates: list[tuple[str, Item, Item, str]] = []
    for picture, sound in joined:
        digest = fit_to_hear(sound.read())
        if picture.stem in NOT_THE_THING or digest is None:
            continue
        kind = kind_of(picture)
        heard.setdefault(digest, set()).add(kind)
        candidates.append((kind, picture, sound, digest))
    for kind, picture, sound, digest in sorted(candidates, key=lambda row: row[1].order):
        if len(heard[digest]) == 1:
            chosen.setdefault(kind, (picture, sound))
    return [(kind, *chosen[kind]) for kind in sorted(chosen, key=str.lower)]


def pick(items: Sequence[Item], queries: Mapping[str, tuple[str, Any]]) -> dict[str, list[Item]]:
    """The pictures of every query."""
    stems = {(item.package, item.stem) for item in items if item.suffix == ".png"}
    pictures = [
        item
        for item in sorted(items, key=lambda item: item.order)
        if item.suffix in {".png", ".webp", ".svg"}
        and not NOT_PICTURES.search(f"/{item.name}")
        and not (item.suffix == ".svg" and (item.package, item.stem) in stems)  # twice the same
    ]
    found: dict[str, list[Item]] = {}
    used: set[str] = set()
    for query, (pattern, _) in queries.items():
        found[query] = []
        for item in pictures:
            if len(found[query]) == PER_QUERY:
                break
            wrong = f"{item.package}/{item.name}" in WRONG.get(query, {})
            if wrong or not titled(item.title, pattern):
                continue
            content = item.read()
            if item.suffix == ".png":
                width, height = png_size(content)
                if width * height > LARGEST_PIXELS or min(width, height) < SMALLEST_SIDE:
                    continue
            digest = hashlib.sha256(content).hexdigest()
            if digest not in used:
                used.add(digest)
                found[query].append(item)
    return found


def save(item: Item, out: Path, folder: str, name: str) -> str:
    """Copy a file below ``out``, an SVG as PNG; returns its path there."""
    suffix, content = item.suffix, item.read()
    if suffix == ".svg":
        suffix, content = ".png", drawn(content)
    elif suffix == ".png":
        content = flattened(content)
    path = f"{folder}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}{suffix}"
    (out / folder).mkdir(parents=True, exist_ok=True)
    (out / path).write_bytes(content)
    return path


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, columns parted by tabs."""
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Read the packages, write the two tables and the files that they name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("tuxpaint", "gcompris", "openclipart", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--esc50", type=Path)
    options = parser.parse_args()
    out: Path = options.out

    stamps, bundles = list(tuxpaint(options.tuxpaint)), list(gcompris(options.gcompris))
    pairs = pair_up([*stamps, *bundles])
    write(
        out_file(out, "pairs.tsv"),
        ("name", "picture", "sound"),
        [
            (kind, save(picture, out, "pictures", kind), save(sound, out, "sounds", kind))
            for kind, picture, sound in pairs
        ],
    )
    write(
        out / "origins.tsv",
        ("name", "package", "picture", "sound"),
        [(kind, picture.package, picture.name, sound.name) for kind, picture, sound in pairs],
    )

    mixed: list[tuple[str, str, str, str]] = []
    origins: list[tuple[str, str, str]] = []
    found = pick([*stamps, *bundles, *openclipart(options.openclipart)], QUERIES)
    for query, pictures in found.items():
        for number, item in enumerate(pictures, 1):
            path = save(item, out, "mixed", f"{query} {number}")
            mixed.append((query, "image", path, ""))
            origins.append((path, f"{item.package}/{item.name}", words(item.title)))
    if options.esc50:
        with (options.esc50 / "esc50.csv").open(encoding="utf-8", newline="") as file:
            clips = list(csv.DictReader(file, delimiter="\t"))
        for query, (_, classes) in QUERIES.items():
            for clip in clips:
                if clip["category"] in classes:
                    mixed.append((query, "audio", f"audio/{clip['filename']}", clip["fold"]))
    write(out / "mixed.tsv", ("query", "modality", "path", "fold"), mixed)
    write(out / "mixed_origins.tsv", ("path", "origin", "title"), origins)
    few = {query: len(items) for query, items in found.items() if len(items) < PER_QUERY}
    print(f"{len(pairs)} pairs; {len(origins)} pictures for {len(found)} queries; fewer: {few}")


def out_file(out: Path, name: str) -> Path:
    """A path below ``out``, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    return out / name


if __name__ == "__main__":
    main()
