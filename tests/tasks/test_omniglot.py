"""Omniglot's images and splits, from small archives of the real layout and the real one."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from gembml.options import OptionError
from gembml.tasks import omniglot
from gembml.tasks.data_dirs import default_data_dir
from gembml.tasks.images import Splits
from tests.tasks.small_omniglot import EVALUATION, contents, load

pytest.importorskip("tensorflow_datasets", reason="needs the extra packages: data")


def images_of(splits: Splits, character: str) -> np.ndarray:
    """``[drawers, 28, 28, 1]``."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    part = next(part for part, names in splits.names.items() if character in names)
    return np.asarray(parts[part].images[splits.names[part].index(character)])


@pytest.mark.usefixtures("prepared")
def test_images_are_small_with_bright_ink_in_the_place_of_their_character(data_dir):
    before = contents(data_dir)
    splits = load(data_dir)
    assert splits.train.images.dtype == np.uint8
    assert splits.train.images.shape == (1100, 2, 28, 28, 1)
    assert set(splits.train.counts) == {2}
    # The background's 34th character: label 33 = 2^0 + 2^5.
    images = images_of(splits, "N_Ko/character02")[..., 0]
    ink = images[:, 2:6] > 200
    assert np.all(ink[:, :, [0, 12, 13]])
    assert not np.any(ink[:, :, 15:])
    drawers = sorted(np.argmax(image[18]) for image in images)
    assert drawers[0] < 4 <= drawers[1]
    assert contents(data_dir) == before


@pytest.mark.usefixtures("prepared")
def test_random_splits_have_the_same_test_characters_and_depend_on_the_seed(data_dir):
    maml, reptile = load(data_dir), load(data_dir, split="random_1200")
    other = load(data_dir, seed=1)
    assert [len(maml.names[part]) for part in ("train", "validation", "test")] == [1100, 100, 423]
    assert len({name for names in maml.names.values() for name in names}) == 1623
    assert maml.names["test"] == reptile.names["test"]
    assert reptile.names["train"] == maml.names["train"] + maml.names["validation"]
    assert reptile.validation is None
    np.testing.assert_array_equal(maml.test.images, reptile.test.images)
    assert set(other.names["test"]) != set(maml.names["test"])
    assert "1,100 / 100 / 423" in maml.description


@pytest.mark.usefixtures("prepared")
def test_the_alphabet_split_divides_no_alphabet(data_dir):
    names = load(data_dir, split="alphabet").names
    alphabets = {part: {n.split("/")[0] for n in names[part]} for part in names}
    assert alphabets["validation"] == set(omniglot.VALIDATION_ALPHABETS)
    assert not alphabets["train"] & alphabets["validation"]
    assert len(names["train"]) + len(names["validation"]) == 964
    assert len(names["test"]) == 659
    assert all(name.startswith("Other") for name in names["test"])


@pytest.mark.usefixtures("prepared")
def test_another_split_is_refused(data_dir):
    with pytest.raises(OptionError, match="one of random_1100, random_1200, alphabet, not vinyals"):
        load(data_dir, split="vinyals")


@pytest.mark.data
def test_the_real_omniglot(cache):
    data = default_data_dir()
    if data is None:
        pytest.skip("GEMBML_DATA_DIR names no folder with omniglot/ in it")
    folder = data / "omniglot"
    if not all((folder / name).is_file() for name in omniglot.LABELS):
        pytest.skip(f"no Omniglot archives in {folder}, which GEMBML_DATA_DIR names")
    assert os.environ["GEMBML_CACHE_DIR"] == str(cache)
    splits = load(data, split="alphabet")
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    assert [len(part.counts) for part in parts.values()] == [861, 103, 659]
    for part in parts.values():
        assert part.images.shape[1:] == (20, 28, 28, 1)
        assert set(part.counts) == {20}
        assert 10 < part.images.mean() < 40  # thin bright strokes on 0
    # Upright: one drawing from the archive is among its character's images, and turned it is not.
    name = "images_evaluation/Angelic/character01/0965_01.png"
    with zipfile.ZipFile(folder / EVALUATION) as archive, archive.open(name) as file:
        raw = 255 - np.asarray(Image.open(file).convert("L").resize((28, 28), Image.Resampling.BOX))
    found = splits.test.images[splits.names["test"].index("Angelic/character01"), ..., 0]

    def correlation(image: np.ndarray) -> float:
        return max(np.corrcoef(image.ravel(), other.ravel())[0, 1] for other in found)

    assert correlation(raw) > 0.97
    assert all(correlation(np.rot90(raw, k)) < 0.8 for k in (1, 2, 3))
    assert correlation(raw.T) < 0.8
