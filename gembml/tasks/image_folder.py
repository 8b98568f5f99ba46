"""A user's own images: a folder with a folder for each class, or already divided into such."""

import pathlib

from gembml.options import OptionError
from gembml.tasks.data_dirs import check_data_dir
from gembml.tasks.image_files import Files, class_files, read_splits, subfolders
from gembml.tasks.images import Splits, shuffled

LEAST_CLASSES = 2
"""In each part: a task with one class is none."""
SIZES = (8, 512)

_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def load(
    data_dir: pathlib.Path | None, *, image_size: int = 84, channels: int = 3, seed: int = 0
) -> Splits:
    """Classes of images ``[classes, most images per class, image_size, image_size, channels]``.

    ``data_dir`` holds either ``train``, ``test`` and perhaps ``val`` (or ``validation``) with a
    folder for each class, or only the folders for classes, which are then divided 60 / 20 / 20
    into train, validation and test after a seeded shuffle of their names. Other files, folders
    deeper down and hidden ones are ignored. The resized images lie in the cache.

    Args:
      data_dir: the folder, which is only read.
      image_size: height and width that images are resized to, whatever their shape.
      channels: 1 (grey) or 3 (RGB).
      seed: of the shuffle; without effect where the folder is divided already.

    Raises:
      OptionError: no folder, no or too few classes, a class without an image or in two parts,
        both ``val`` and ``validation``, an image that cannot be decoded.
    """
    if not SIZES[0] <= image_size <= SIZES[1]:
        raise OptionError(f"image_size must be from {SIZES[0]} to {SIZES[1]}, not {image_size}.")
    if channels not in (1, 3):
        raise OptionError(f"channels must be 1 (grey) or 3 (RGB), not {channels}.")
    if data_dir is None:
        raise OptionError("A folder of images needs a data folder; none was named.")
    check_data_dir(data_dir, "name one that has a folder of images for each class")
    names = {path.name for path in subfolders(data_dir)}
    divided = {"train", "test"} <= names
    parts = _divided(data_dir, names) if divided else _by_shuffle(data_dir, seed)
    sizes = " / ".join(str(len(files)) for files in parts.values())
    return read_splits(
        "image_folder",
        parts,
        size=image_size,
        channels=channels,
        description=f"{data_dir}: {sizes} classes for {' / '.join(parts)}"
        + (", divided by its folders" if divided else f", shuffle seed {seed}"),
    )


def _divided(folder: pathlib.Path, names: set[str]) -> dict[str, Files]:
    if {"val", "validation"} <= names:
        raise OptionError(
            f"{folder} has both val and validation, of which only one can be the validation "
            "classes; rename or merge them."
        )
    parts: dict[str, Files] = {}
    for name, part in _PARTS.items():
        if name in names:
            parts[part] = class_files(folder / name)
            if len(parts[part]) < LEAST_CLASSES:
                raise OptionError(
                    f"{folder / name} has {len(parts[part])} class, and tasks need at least "
                    f"{LEAST_CLASSES}."
                )
    return parts


def _by_shuffle(folder: pathlib.Path, seed: int) -> dict[str, Files]:
    files = class_files(folder)
    if len(files) < 3 * LEAST_CLASSES:
        raise OptionError(
            f"{folder} has {len(files)} class folders, and dividing them into train, validation "
            f"and test needs at least {3 * LEAST_CLASSES}."
        )
    order = shuffled(files, seed)
    held_out = max(LEAST_CLASSES, round(0.2 * len(order)))
    bounds = (0, len(order) - 2 * held_out, len(order) - held_out, len(order))
    return {
        part: {name: files[name] for name in order[start:stop]}
        for part, start, stop in zip(
            ("train", "validation", "test"), bounds[:-1], bounds[1:], strict=True
        )
    }
