"""Omniglot through tensorflow-datasets without TensorFlow, which the stock builder needs."""

import contextlib
import io
import os
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gembml.options import OptionError
from gembml.tasks.data_dirs import curl
from gembml.tasks.decoding import optional

URL = "https://github.com/brendenlake/omniglot/raw/master/python/"

_MEMBER = re.compile(r"[^/]+/([^/]+)/character(\d+)/(\d+)_(\d+)\.png")
_PROBE_SECONDS = 10


class Drawing(NamedTuple):
    """One member of an archive: <folder>/<alphabet>/character<NN>/<label + 1>_<drawer>.png."""

    alphabet: str
    character: int
    label: int
    drawer: int
    png: bytes


class Example(NamedTuple):
    """One prepared image."""

    name: str
    """Of its character: <alphabet>/character<NN>."""
    label: int
    """Of its character, 0 .. 1622; upstream numbers all characters."""
    evaluation: bool
    """Whether its alphabet is one of the evaluation's."""
    png: bytes


def drawing(name: str, png: bytes) -> Drawing | None:
    """A member of an archive, or None if it is none of the drawings."""
    match = _MEMBER.fullmatch(name)
    if match is None or name.startswith("__MACOSX/"):
        return None
    alphabet, character, label, drawer = match.groups()
    return Drawing(alphabet, int(character), int(label) - 1, int(drawer), png)


def download(
    names: Sequence[str], folder: pathlib.Path, by_hand: pathlib.Path
) -> dict[str, pathlib.Path]:
    """The archives at :data:`URL`, by tensorflow-datasets' own download, whatever their SHA-256.

    Args:
      names: of the archives.
      folder: where they go; new or empty, as files that are there are not checked again.
      by_hand: where users who have no network here are told to put them.

    Raises:
      OptionError: there is no network, or no such file.
    """
    tfds = optional("tensorflow_datasets", "tensorflow-datasets")
    try:
        # Its download retries for minutes where there is no network, and blocks meanwhile.
        request = urllib.request.Request(URL + names[0], method="HEAD")
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        # Other archives than those that tensorflow-datasets knows are recorded, not refused: the
        # caller compares them.
        manager = tfds.download.DownloadManager(
            download_dir=folder,
            register_checksums=True,
            register_checksums_path=folder / "checksums.tsv",
        )
        # One after the other: when one fails, none is still being written.
        return {name: pathlib.Path(manager.download(URL + name)) for name in names}
    except Exception as error:  # of urllib, requests and tensorflow-datasets
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise OptionError(
            f"Omniglot cannot be downloaded ({reason}): {what_to_put(names, by_hand)}."
        ) from error


def what_to_put(names: Sequence[str], folder: pathlib.Path) -> str:
    """A clause that says where the archives go, and a command that puts them there."""
    return (
        f"put {' and '.join(names)} from {URL} into {folder}, with "
        f"{curl([URL + name for name in names], folder)} or by hand"
    )


def prepare(drawings: Mapping[str, Sequence[Drawing]], folder: pathlib.Path) -> Iterator[Example]:
    """Writes the dataset into ``folder``, and yields its images in the order that is stored there.

    ``tfds.data_source("omniglot", split="train", data_dir=folder)`` reads it without this module.

    Args:
      drawings: "images_background.zip" and "images_evaluation.zip", the splits train and test.
      folder: is created.
    """
    tfds = optional("tensorflow_datasets", "tensorflow-datasets")
    builder = _builder(tfds, drawings, folder)
    with _quietly(tfds):
        builder.download_and_prepare(file_format="array_record")
    raw = {"image": tfds.decode.SkipDecoding()}
    label_names = builder.info.features["label"].names
    for split in ("train", "test"):
        for example in builder.as_data_source(split=split, decoders=raw):
            label = int(example["label"])
            alphabet, character = label_names[label].rsplit("_", 1)
            name = f"{alphabet}/character{int(character) + 1:02}"
            yield Example(name, label, split == "test", bytes(example["image"]))


def _builder(tfds: Any, drawings: Mapping[str, Sequence[Drawing]], folder: pathlib.Path) -> Any:
    stock = optional("tensorflow_datasets.image_classification.omniglot", "tensorflow-datasets")
    every = [d for group in drawings.values() for d in group]
    labels = {d.label: f"{d.alphabet}_{d.character - 1}" for d in every}

    with tfds.core.registered.skip_registration():

        class Omniglot(stock.Omniglot):
            """The stock builder, with archives that were read without TensorFlow."""

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                del dl_manager
                self.info.features["alphabet"].names = sorted({d.alphabet for d in every})
                self.info.features["label"].names = [labels[label] for label in sorted(labels)]
                return {
                    "train": self._generate_examples(drawings["images_background.zip"]),
                    "test": self._generate_examples(drawings["images_evaluation.zip"]),
                }

            def _generate_examples(self, drawings: Sequence[Drawing]) -> Iterator[Any]:
                for d in drawings:
                    record = {
                        "image": d.png,
                        "alphabet": d.alphabet,
                        "alphabet_char_id": d.character - 1,
                        "label": d.label,
                    }
                    # The stock builder's key, which decides the order.
                    name = f"{d.alphabet}_{d.character - 1}_{d.label + 1:04}_{d.drawer:02}.png"
                    yield name, record

    return Omniglot(data_dir=os.fspath(folder))


@contextlib.contextmanager
def _quietly(tfds: Any) -> Iterator[None]:
    """No progress bars and no messages to the standard output, which belong to the program."""
    tqdm = tfds.core.utils.tqdm_utils
    active = tqdm._active
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm._active = active
