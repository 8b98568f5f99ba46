"""Image files in a folder per class, read and resized once into the cache."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from gembml.options import OptionError
from gembml.tasks.data_dirs import cache_dir, preparing, read_arrays
from gembml.tasks.decoding import decode, pillow, resized
from gembml.tasks.images import ImageClasses, Splits

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MOST_BYTES = 2**34
"""Of one split's array; more is refused."""

Files = Mapping[str, list[pathlib.Path]]
"""A class's name -> its images' files, at least one."""

_ARRAYS = "images.npz"
_FORMAT = 2  # another one when the same files give other arrays


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, by name, without hidden ones.

    Raises:
      OptionError: it cannot be listed.
    """
    return [path for path in _listed(folder) if path.is_dir()]


def class_files(folder: pathlib.Path) -> Files:
    """The images in each subfolder, by name.

    Raises:
      OptionError: there is no subfolder, or one without an image.
    """
    files = {
        path.name: [file for file in _listed(path) if file.suffix.lower() in SUFFIXES]
        for path in subfolders(folder)
    }
    if not files:
        raise OptionError(f"{folder} has no folders of images, one for each class.")
    for name, images in files.items():
        if not images:
            raise OptionError(
                f"The class folder {folder / name} has no image ({', '.join(SUFFIXES)})."
            )
    return files


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    except OSError as error:
        raise OptionError(f"The folder {folder} cannot be read ({error.strerror}).") from error


def read_splits(
    dataset: str, parts: Mapping[str, Files], *, size: int, channels: int, description: str
) -> Splits:
    """All images, resized to ``size`` x ``size``, from the cache if the files have not changed.

    Whether they have is told by their names, sizes and times of modification.

    Args:
      dataset: the cache's subfolder.
      parts: "train", "test" and perhaps "validation".
      size: height and width of the result.
      channels: 1 (grey) or 3 (RGB) of the result.
      description: for :class:`Splits`.

    Raises:
      OptionError: an image that cannot be decoded, a class in two parts, or too many images.
    """
    _check(parts, size, channels)
    folder = cache_dir() / dataset / _fingerprint(parts, size, channels)
    if not folder.is_dir():
        pillow()  # says what to install, if so, before anything is made
        with preparing(folder) as temporary:
            arrays: dict[str, np.ndarray] = {}
            for part, files in parts.items():
                data = _read(files, size, channels)
                arrays |= {
                    f"{part}_images": np.asarray(data.images),
                    f"{part}_counts": np.asarray(data.counts),
                }
            np.savez(temporary / _ARRAYS, allow_pickle=False, **arrays)
    arrays = read_arrays(folder / _ARRAYS)
    classes = {
        part: ImageClasses(arrays[f"{part}_images"], arrays[f"{part}_counts"]) for part in parts
    }
    return Splits(
        train=classes["train"],
        validation=classes.get("validation"),
        test=classes["test"],
        names={part: tuple(parts.get(part, ())) for part in ("train", "validation", "test")},
        description=description,
    )


def _check(parts: Mapping[str, Files], size: int, channels: int) -> None:
    part_of: dict[str, str] = {}
    for part, files in parts.items():
        for name in files:
            if name in part_of:
                raise OptionError(
                    f"The class {name} is in both {part_of[name]} and {part}, where "
                    "meta-learning needs classes at test that it was not trained on."
                )
            part_of[name] = part
        needed = len(files) * max(map(len, files.values())) * size * size * channels
        if needed > MOST_BYTES:
            raise OptionError(
                f"The images of {part} would take {needed / 2**30:.1f} GiB as {len(files)} classes "
                f"padded to the largest, where at most {MOST_BYTES / 2**30:.0f} GiB are read."
            )


def _fingerprint(parts: Mapping[str, Files], size: int, channels: int) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {size} {channels}".encode())
    for part, files in parts.items():
        for name, images in files.items():
            for image in images:
                try:
                    status = image.stat()
                except OSError as error:
                    raise OptionError(
                        f"The image {image} cannot be read ({error.strerror})."
                    ) from (error)
                line = (part, name, str(image.absolute()), status.st_size, status.st_mtime_ns)
                digest.update(repr(line).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _read(files: Files, size: int, channels: int) -> ImageClasses:
    counts = np.array([len(images) for images in files.values()], np.int32)
    array = np.zeros((len(counts), counts.max(), size, size, channels), np.uint8)

    def fill(row: int, column: int, path: pathlib.Path) -> None:
        array[row, column] = resized(decode(path, str(path), channels=channels), size)

    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())  # decoding releases the GIL
    try:
        tasks = [
            pool.submit(fill, row, column, path)
            for row, images in enumerate(files.values())
            for column, path in enumerate(images)
        ]
        for task in tasks:
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return ImageClasses(array, counts)
