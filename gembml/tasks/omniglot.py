"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015): 1,623 characters x 20 drawers, 28 x 28.

The archives are prepared by tensorflow-datasets, without TensorFlow (:mod:`.omniglot_tfds`), then
resized once; later loads read one array file. Ink is 255 on 0, upstream's inverted.

Pixels: from 105 x 105 by Pillow's LANCZOS, which MAML's code asks for. (There the images have 1
bit, for which Pillow silently takes the nearest pixel; here they are given 8 bits first.)
"""

import json
import pathlib
import shutil
import warnings
from collections.abc import Callable

import numpy as np

from gembml.options import OptionError
from gembml.tasks import omniglot_tfds
from gembml.tasks.archives import Bounds, read_zip, sha256
from gembml.tasks.data_dirs import (
    cache_dir,
    check_data_dir,
    own_folder,
    preparing,
    read_arrays,
)
from gembml.tasks.decoding import decode, resized
from gembml.tasks.images import ImageClasses, Splits, divide, shuffled, stack

SIZE = 28
RAW_SIZE = (105, 105)
LABELS = {"images_background.zip": range(964), "images_evaluation.zip": range(964, 1623)}
"""Which characters, in upstream's numbering, an archive holds."""
UPSTREAM_SHA256 = {
    "images_background.zip": "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    "images_evaluation.zip": "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
}
"""As tensorflow-datasets registers them."""
VALIDATION_ALPHABETS = ("Balinese", "Greek", "Hebrew", "N_Ko")
"""Held out of the background's 30 alphabets by the split "alphabet": 103 of 964 characters."""

_BOUNDS = Bounds(members=50_000, member_bytes=2**16, total_bytes=2**26)
_ARRAYS = "28x28.npz"
_RECORD = "archives.json"
_DOWNLOADED = "downloaded"

Parts = dict[str, list[str]]


def load(
    data_dir: pathlib.Path | None = None, *, split: str = "random_1100", seed: int = 0
) -> Splits:
    """Omniglot's characters as classes of images ``[characters, 20, 28, 28, 1]``.

    The archives ``images_background.zip`` and ``images_evaluation.zip`` are taken from
    ``<data_dir>/omniglot`` (or ``data_dir`` itself), and downloaded where there are none. What is
    prepared lies in the cache (GEMBML_CACHE_DIR, by default ~/.cache/gembml) in a folder named by
    the archives' SHA-256, so other archives are prepared anew, or in the folder ``downloaded``.
    Archives that were downloaded are not kept.

    Args:
      data_dir: a folder, which is only read.
      split: "random_1200": 1,200 / 423 characters for training / test after a seeded shuffle, no
        validation (Reptile; Zou & Lu). "random_1100": the same with the last 100 of the 1,200 for
        validation (MAML). "alphabet": the background's characters / the evaluation's, 861 / 103 /
        659, with :data:`VALIDATION_ALPHABETS` for validation; no alphabet is in two parts.
      seed: of the shuffle; without effect on "alphabet".

    Raises:
      OptionError: an unknown split, no archives and no network, an archive that is not whole, not
        Omniglot, has a drawing twice, or is not safe to read, or a cache that is damaged or cannot
        be written.

    Warns:
      UserWarning: an archive's SHA-256 differs from upstream's.
    """
    if split not in SPLITS:
        raise OptionError(f"split must be one of {', '.join(SPLITS)}, not {split}.")
    folder = _prepared(_local_archives(data_dir), data_dir)
    arrays = read_arrays(folder / _ARRAYS)
    names, evaluation = arrays["names"].tolist(), arrays["evaluation"].tolist()
    parts = SPLITS[split](names, evaluation, seed)
    sizes = " / ".join(f"{len(parts[part]):,}" for part in parts)
    return divide(
        ImageClasses(arrays["images"], arrays["counts"]),
        names,
        parts,
        f"Omniglot, split {split}: {sizes} characters for {' / '.join(parts)}"
        + ("" if split == "alphabet" else f", shuffle seed {seed}"),
    )


def _random_1200(names: list[str], evaluation: list[bool], seed: int) -> Parts:
    del evaluation
    order = shuffled(names, seed)
    return {"train": order[:1200], "test": order[1200:]}


def _random_1100(names: list[str], evaluation: list[bool], seed: int) -> Parts:
    parts = _random_1200(names, evaluation, seed)
    train = parts["train"]
    return {"train": train[:1100], "validation": train[1100:], "test": parts["test"]}


def _alphabet(names: list[str], evaluation: list[bool], seed: int) -> Parts:
    del seed
    parts: Parts = {"train": [], "validation": [], "test": []}
    for name, evaluated in zip(names, evaluation, strict=True):
        held_out = name.split("/")[0] in VALIDATION_ALPHABETS
        parts["test" if evaluated else "validation" if held_out else "train"].append(name)
    return parts


SPLITS: dict[str, Callable[[list[str], list[bool], int], Parts]] = {
    "random_1100": _random_1100,
    "random_1200": _random_1200,
    "alphabet": _alphabet,
}


def _local_archives(data_dir: pathlib.Path | None) -> dict[str, pathlib.Path] | None:
    """The two archives, or None if there is not one of them."""
    if data_dir is None:
        return None
    check_data_dir(
        data_dir, omniglot_tfds.what_to_put(list(LABELS), own_folder(data_dir, "omniglot"))
    )
    for folder in (data_dir / "omniglot", data_dir):
        found = {name: folder / name for name in LABELS if (folder / name).is_file()}
        if len(found) == len(LABELS):
            return found
        if found:
            missing = [name for name in LABELS if name not in found]
            needed = omniglot_tfds.what_to_put(missing, folder)
            raise OptionError(f"{folder} lacks {', '.join(missing)}: {needed}.")
    return None


def _prepared(
    archives: dict[str, pathlib.Path] | None, data_dir: pathlib.Path | None
) -> pathlib.Path:
    """The cache folder for these archives, or for a download if None; made if it is not there."""
    root = cache_dir() / "omniglot"
    if archives is None:
        known = root / _key(UPSTREAM_SHA256)
        if known.is_dir():
            return known
        folder = root / _DOWNLOADED
        if folder.is_dir():
            _warn_if_different(_recorded(folder))
        else:
            _download(folder, own_folder(data_dir or pathlib.Path("DATA_DIR"), "omniglot"))
        return folder
    hashes = {name: sha256(path) for name, path in archives.items()}
    _warn_if_different(hashes)
    folder = root / _key(hashes)
    if not folder.is_dir():
        with preparing(folder) as temporary:
            _prepare(archives, temporary)
            _record(temporary, hashes)
    return folder


def _download(folder: pathlib.Path, by_hand: pathlib.Path) -> None:
    """Upstream's archives of today, prepared in ``folder``."""
    with preparing(folder) as temporary:
        # In the temporary folder, so that archives that are refused go with it.
        downloads = temporary / "downloads"
        archives = omniglot_tfds.download(list(LABELS), downloads, by_hand)
        hashes = {name: sha256(path) for name, path in archives.items()}
        _warn_if_different(hashes)
        try:
            _prepare(archives, temporary)
        except OptionError as error:
            reason = str(error)
            for name, path in archives.items():
                reason = reason.replace(str(path), omniglot_tfds.URL + name)
            raise OptionError(
                "Omniglot was downloaded but not prepared, and the next run downloads it again: "
                + reason
            ) from error
        _record(temporary, hashes)
        shutil.rmtree(downloads)


def _record(folder: pathlib.Path, hashes: dict[str, str]) -> None:
    record = {"sha256": hashes, "upstream_sha256": UPSTREAM_SHA256}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _recorded(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the archives that a folder of the cache was prepared from."""
    try:
        hashes = json.loads((folder / _RECORD).read_text())["sha256"]
        return {name: hashes[name] for name in LABELS}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OptionError(
            f"{folder / _RECORD} cannot be read ({error}); delete {folder} and Omniglot is "
            "downloaded again."
        ) from error


def _key(hashes: dict[str, str]) -> str:
    return "-".join(hashes[name][:12] for name in sorted(hashes))


def _warn_if_different(hashes: dict[str, str]) -> None:
    for name, upstream in UPSTREAM_SHA256.items():
        if hashes[name] != upstream:
            # It is about a file, so it is shown without a line of the program.
            warnings.warn_explicit(
                f"Omniglot: the SHA-256 of {name} is {hashes[name]}, not upstream's {upstream}.",
                UserWarning,
                filename=name,
                lineno=0,
                module=__name__,
            )


def _prepare(archives: dict[str, pathlib.Path], folder: pathlib.Path) -> None:
    drawings = {name: list(_drawings(path)) for name, path in archives.items()}
    for name, expected in LABELS.items():
        characters = {(d.label, d.alphabet, d.character) for d in drawings[name]}
        if sorted(label for label, *_ in characters) != list(expected):
            raise OptionError(
                f"{archives[name]} holds {len(characters)} characters, where Omniglot's holds "
                f"{len(expected)}, numbered {expected[0] + 1} to {expected[-1] + 1}."
            )
    _check_names(archives, drawings)
    classes: dict[int, list[np.ndarray]] = {}
    names: dict[int, str] = {}
    evaluation: dict[int, bool] = {}
    for example in omniglot_tfds.prepare(drawings, folder / "tfds"):
        image = decode(example.png, example.name, channels=1, size=RAW_SIZE)
        ink = 255 - resized(image, SIZE)
        classes.setdefault(example.label, []).append(ink)
        names[example.label], evaluation[example.label] = example.name, example.evaluation
    labels = sorted(classes)
    data = stack(classes[label] for label in labels)
    np.savez(
        folder / _ARRAYS,
        images=data.images,
        counts=data.counts,
        names=np.array([names[label] for label in labels]),
        evaluation=np.array([evaluation[label] for label in labels]),
    )


def _check_names(
    archives: dict[str, pathlib.Path], drawings: dict[str, list[omniglot_tfds.Drawing]]
) -> None:
    """A character's name is that of a class, so no two have the same."""
    label_of: dict[tuple[str, int], int] = {}
    for name, path in archives.items():
        for d in drawings[name]:
            label = label_of.setdefault((d.alphabet, d.character), d.label)
            if label != d.label:
                raise OptionError(
                    f"{path} has {d.alphabet}/character{d.character:02} as the number "
                    f"{d.label + 1}, which was already the number {label + 1}."
                )


def _drawings(path: pathlib.Path) -> list[omniglot_tfds.Drawing]:
    """The drawings of an archive, each of which decodes and is there once."""
    drawings = []
    member_of: dict[tuple[int, int], str] = {}
    for name, png in read_zip(path, _BOUNDS):
        drawing = omniglot_tfds.drawing(name, png)
        if drawing is not None:
            first = member_of.setdefault((drawing.label, drawing.drawer), name)
            if len(member_of) == len(drawings):
                raise OptionError(
                    f"{path} has the drawing {name!r} twice"
                    + ("." if first == name else f", first as {first!r}.")
                )
            decode(png, f"{name} in {path}", channels=1, size=RAW_SIZE)
            drawings.append(drawing)
    return drawings
