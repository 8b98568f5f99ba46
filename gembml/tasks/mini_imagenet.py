"""miniImageNet with the classes of Ravi & Larochelle (2017): 64 / 16 / 20 x 600, 84 x 84.

The images are ImageNet's and cannot be redistributed, so the user brings them: those of ILSVRC
2012's training set that Ravi & Larochelle's lists name (:data:`LISTS`). n0153282900000005.jpg there
is the 5th image of the class n01532829 in the order of ImageNet's own numbers
(n01532829_<number>.JPEG), as https://github.com/yaoyao-liu/mini-imagenet-tools reads them. Those
that are not 84 x 84 are resized by Pillow's LANCZOS, as MAML's code does, without keeping their
shape.
"""

import csv
import os
import pathlib
import pickle
from typing import Any

import numpy as np

from gembml.options import OptionError
from gembml.tasks.data_dirs import check_data_dir, curl, own_folder
from gembml.tasks.image_files import Files, class_files, read_splits
from gembml.tasks.images import ImageClasses, Splits, stack

SIZE = 84
CLASSES = {"train": 64, "validation": 16, "test": 20}
LISTS = "https://github.com/twitter-research/meta-learning-lstm/raw/master/data/miniImagenet/"
"""Where Ravi & Larochelle's train.csv, val.csv and test.csv are published."""

_PARTS = {"train": "train", "validation": "val", "test": "test"}
_NEEDED = (
    "train, val and test with a folder for each class; or train.csv, val.csv and test.csv "
    "(filename,label) with their images in the folder images; or "
    "mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl"
)


def load(data_dir: pathlib.Path | None, *, allow_pickle: bool = False) -> Splits:
    """Classes of images ``[classes, 600, 84, 84, 3]``.

    ``<data_dir>/mini_imagenet``, or ``data_dir`` itself, holds one of, in this order:

    - ``train``, ``val`` and ``test`` with a folder for each class;
    - Ravi & Larochelle's ``train.csv``, ``val.csv`` and ``test.csv`` (columns filename and label)
      with the images in ``images``;
    - the pickles ``mini-imagenet-cache-train.pkl``, ``-val.pkl`` and ``-test.pkl``.

    Files are resized once into the cache (800 MB; GEMBML_CACHE_DIR); pickles are read as they are.

    Args:
      data_dir: a folder, which is only read.
      allow_pickle: whether to read pickles. Reading one runs whatever code it contains.

    Raises:
      OptionError: no such folder or layout, other numbers of classes, an image that is missing,
        cannot be decoded or is there twice, a class in two parts, or pickles without
        ``allow_pickle``.
    """
    if data_dir is None:
        where = _where_from(pathlib.Path("DATA_DIR"))
        raise OptionError(f"miniImageNet needs a data folder that holds {_NEEDED}; {where}.")
    check_data_dir(
        data_dir, f"miniImageNet needs one that holds {_NEEDED}; {_where_from(data_dir)}"
    )
    for folder in (data_dir / "mini_imagenet", data_dir):
        description = f"miniImageNet, Ravi & Larochelle's 64 / 16 / 20 classes, from {folder}"
        if all((folder / name).is_dir() for name in _PARTS.values()):
            files = {part: class_files(folder / name) for part, name in _PARTS.items()}
            return _from_files(files, description)
        if all((folder / f"{name}.csv").is_file() for name in _PARTS.values()):
            files = {part: _csv_files(folder, name) for part, name in _PARTS.items()}
            _check_listed_once(files)
            return _from_files(files, description)
        pickles = {
            part: folder / f"mini-imagenet-cache-{name}.pkl" for part, name in _PARTS.items()
        }
        if all(path.is_file() for path in pickles.values()):
            return _from_pickles(pickles, description, allow_pickle)
    raise OptionError(
        f"{data_dir} holds no miniImageNet, which is {_NEEDED}; {_where_from(data_dir)}."
    )


def _where_from(data_dir: pathlib.Path) -> str:
    """A clause that says where lists and images come from and go, with a command for the lists."""
    folder = own_folder(data_dir, "mini_imagenet")
    return (
        f"the lists go into {folder}, with "
        f"{curl([f'{LISTS}{name}.csv' for name in _PARTS.values()], folder)}, and the images that "
        f"they name into {folder / 'images'}: n0153282900000005.jpg is the 5th of "
        "n01532829_*.JPEG, in the order of their numbers, in ImageNet's ILSVRC 2012 training set "
        "(https://image-net.org, under its licence)"
    )


def _check(part: str, classes: int) -> None:
    if classes != CLASSES[part]:
        raise OptionError(
            f"miniImageNet has {CLASSES[part]} classes for {part}, and here are {classes}; for "
            "other classes use the dataset image_folder."
        )


def _from_files(parts: dict[str, Files], description: str) -> Splits:
    for part, files in parts.items():
        _check(part, len(files))
    return read_splits("mini_imagenet", parts, size=SIZE, channels=3, description=description)


def _csv_files(folder: pathlib.Path, part: str) -> Files:
    """The images of one of Ravi & Larochelle's lists."""
    path = folder / f"{part}.csv"
    files: dict[str, list[pathlib.Path]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [(row["filename"], row["label"]) for row in csv.DictReader(lines)]
    except (KeyError, csv.Error, UnicodeDecodeError, OSError) as error:
        raise OptionError(f"{path} is no list with the columns filename and label.") from error
    for filename, label in rows:
        if not filename or not label or pathlib.PurePath(filename).name != filename:
            raise OptionError(f"{path} has a line that names no file in images: {filename!r}.")
        image = folder / "images" / filename
        if not os.path.isfile(image):
            raise OptionError(f"The image {image} that {path.name} lists is missing.")
        files.setdefault(label, []).append(image)
    return {label: sorted(files[label]) for label in sorted(files)}


def _check_listed_once(parts: dict[str, Files]) -> None:
    """An image that is there twice could be in a task's support and in its query."""
    list_of: dict[pathlib.Path, str] = {}
    for part, files in parts.items():
        for image in (image for images in files.values() for image in images):
            path = f"{_PARTS[part]}.csv"
            if image in list_of:
                where = f"twice in {path}"
                if list_of[image] != path:
                    where = f"in both {list_of[image]} and {path}"
                raise OptionError(f"The image {image} is listed {where}, and should be once.")
            list_of[image] = path


def _from_pickles(paths: dict[str, pathlib.Path], description: str, allow_pickle: bool) -> Splits:
    if not allow_pickle:
        raise OptionError(
            f"{paths['train'].parent} holds miniImageNet as pickles, and reading a pickle runs "
            "whatever code it contains: if you trust where they come from, give --allow_pickle "
            "(in Python, allow_pickle=True)."
        )
    classes: dict[str, ImageClasses] = {}
    names: dict[str, tuple[str, ...]] = {}
    for part, path in paths.items():
        by_name = _unpickled(path)
        _check(part, len(by_name))
        for other, taken in names.items():
            for name in sorted(set(taken) & set(by_name)):
                raise OptionError(
                    f"The class {name} is in both {paths[other].name} and {path.name}, where "
                    "meta-learning needs classes at test that it was not trained on."
                )
        names[part] = tuple(sorted(by_name))
        classes[part] = stack(by_name[name] for name in names[part])
    return Splits(
        classes["train"], classes["validation"], classes["test"], names, description + ", pickles"
    )


def _unpickled(path: pathlib.Path) -> dict[str, list[np.ndarray]]:
    """A class's name -> its images, uint8 ``[n, 84, 84, 3]``."""
    try:
        with path.open("rb") as file:
            content: Any = pickle.load(file, encoding="latin1")  # some were written by Python 2
        images = np.asarray(content["image_data"])
        rows = {
            str(name): np.asarray(indices, int).reshape(-1)
            for name, indices in content["class_dict"].items()
        }
        by_name = {name: list(images[indices]) for name, indices in rows.items()}
    except Exception as error:  # whatever the code in it does
        raise OptionError(
            f"{path} cannot be read as a pickle of image_data and class_dict ({error!r})."
        ) from error
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
        raise OptionError(
            f"{path} holds {images.dtype} images {images.shape}, not uint8 [n, {SIZE}, {SIZE}, 3]."
        )
    if not all(by_name.values()):
        raise OptionError(f"{path} has a class without an image.")
    class_of: dict[int, str] = {}
    for name, indices in rows.items():
        for index in (indices % len(images)).tolist():  # -1 is the last one also
            if index in class_of:
                raise OptionError(
                    f"{path} has its image {index} twice, in the class {class_of[index]} and "
                    f"{'again there' if class_of[index] == name else f'in {name}'}."
                )
            class_of[index] = name
    return by_name
