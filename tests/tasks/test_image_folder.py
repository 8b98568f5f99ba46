"""A user's own folder of images; the cache that all data sets share; the table of data sets."""

import functools
import io
import os
import pathlib
import time

import numpy as np
import pytest
from PIL import Image

from gembml.options import OptionError
from gembml.tasks import data_dirs, datasets, decoding, image_files, image_folder
from gembml.tasks.images import ImageClasses
from tests.small_images import class_folders, huge_png, png
from tests.tasks.refused import refused

pytestmark = pytest.mark.usefixtures("cache")

refusal = functools.partial(refused, image_folder.load)
CLASSES = {f"class_{i}": 2 + i % 3 for i in range(10)}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    class_folders(tmp_path / "data", CLASSES)
    return tmp_path / "data"


def values(data: ImageClasses | None) -> list[list[int]]:
    """Each class's images, each of which has one value everywhere."""
    assert data is not None
    assert np.all(data.images == data.images[:, :, :1, :1, :1])
    return [
        images[:count, 0, 0, 0].tolist()
        for images, count in zip(np.asarray(data.images), data.counts, strict=True)
    ]


def test_class_folders_are_divided_by_a_seeded_shuffle(folder):
    splits = image_folder.load(folder, image_size=8, channels=3)
    assert {part: len(names) for part, names in splits.names.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
    }
    assert {name for names in splits.names.values() for name in names} == set(CLASSES)
    assert splits.train.images.shape == (6, 4, 8, 8, 3)
    for part in ("train", "validation", "test"):
        for name, found in zip(splits.names[part], values(getattr(splits, part)), strict=True):
            c = int(name.removeprefix("class_"))
            assert found == [10 * c + i for i in range(CLASSES[name])]
    assert image_folder.load(folder, image_size=8).names == splits.names
    assert image_folder.load(folder, image_size=8, seed=1).names != splits.names
    assert "6 / 2 / 2 classes" in splits.description


def test_a_relative_folder_is_the_one_in_the_working_directory(tmp_path, monkeypatch):
    for place, value in (("here", 10), ("there", 200)):
        class_folders(tmp_path / place / "data", dict.fromkeys("abcdef", 1))
        for image in (tmp_path / place).rglob("*.png"):
            image.write_bytes(png(np.full((10, 12), value, np.uint8)))
            os.utime(image, (0, 0))
        monkeypatch.chdir(tmp_path / place)
        splits = image_folder.load(pathlib.Path("data"), image_size=8)
        assert np.all(splits.train.images == value)


def test_a_name_that_is_too_long_for_the_system_is_refused(tmp_path, cache):
    assert "does not exist" in refusal(tmp_path / ("n" * 300), cache)


def test_names_of_classes_may_be_no_utf_8(tmp_path):
    classes = dict.fromkeys([*"abcde", os.fsdecode(b"\xff")], 1)
    class_folders(tmp_path / "data", classes)
    splits = image_folder.load(tmp_path / "data", image_size=8)
    assert {name for part in splits.names.values() for name in part} == set(classes)


@pytest.mark.parametrize("validation", [None, "val", "validation"])
def test_folders_for_the_parts_are_taken_as_they_are(validation, tmp_path):
    parts = {"train": 3, "test": 2} | ({validation: 2} if validation else {})
    for part, classes in parts.items():
        class_folders(tmp_path / part, {f"{part}_{i}": 1 for i in range(classes)})
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "train_0" / "notes.txt").write_text("ignored")
    (tmp_path / "train" / "train_0" / "._0.png").write_text("ignored")
    splits = image_folder.load(tmp_path, image_size=9, channels=1)
    assert splits.names["train"] == ("train_0", "train_1", "train_2")
    assert splits.train.images.shape == (3, 1, 9, 9, 1)
    assert (splits.validation is None) == (validation is None)


def test_a_second_load_reads_the_cache_and_a_changed_file_is_read_again(folder, monkeypatch):
    first = image_folder.load(folder, image_size=8, channels=1)
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_read", None)
        again = image_folder.load(folder, image_size=8, channels=1)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    name = first.names["train"][0]
    (folder / name / "0.png").write_bytes(png(np.full((10, 12), 222, np.uint8)))
    assert values(image_folder.load(folder, image_size=8, channels=1).train)[0][0] == 222


def test_bad_folders_are_refused(tmp_path, folder, cache):
    assert "none was named" in refusal(None, cache)
    assert "does not exist: name one" in refusal(tmp_path / "missing", cache)
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refusal(tmp_path / "file", cache)
    (tmp_path / "empty").mkdir()
    assert "has no folders of images" in refusal(tmp_path / "empty", cache)
    (folder / "class_3" / "0.png").rename(folder / "class_3" / "0.txt")
    (folder / "class_3" / "1.png").unlink()
    assert f"{folder / 'class_3'} has no image" in refusal(folder, cache)


def test_too_few_classes_are_refused(tmp_path, cache):
    class_folders(tmp_path / "five", dict.fromkeys("abcde", 1))
    assert "has 5 class folders" in refusal(tmp_path / "five", cache)
    class_folders(tmp_path / "two" / "train", dict.fromkeys("ab", 1))
    class_folders(tmp_path / "two" / "test", {"c": 1})
    assert "has 1 class, and tasks need at least 2" in refusal(tmp_path / "two", cache)


def test_two_folders_for_validation_are_refused(tmp_path, cache):
    for i, part in enumerate(("train", "val", "validation", "test")):
        class_folders(tmp_path / "data" / part, {f"{i}a": 1, f"{i}b": 1})
    assert "has both val and validation" in refusal(tmp_path / "data", cache)


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_photographs_are_turned_as_their_exif_data_say(kind, orientation, tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255  # the top left corner
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "photograph", kind, exif=exif)
    image = decoding.decode(tmp_path / "photograph", "photograph", channels=1)
    turns = {3: 2, 6: -1, 8: 1}.get(orientation or 1, 0)  # by 90 degrees, counter-clockwise
    expected = np.rot90(pixels[..., 0], turns)
    np.testing.assert_allclose(np.asarray(image, int), expected.astype(int), atol=40)


def test_damaged_exif_data_turn_nothing():
    file = io.BytesIO()
    Image.new("RGB", (4, 2)).save(file, "JPEG", exif=b"Exif\0\0no EXIF data")
    assert decoding.decode(file.getvalue(), "damaged", channels=3).size == (4, 2)


def test_a_class_in_two_parts_is_refused(tmp_path, cache):
    class_folders(tmp_path / "data" / "train", dict.fromkeys("ab", 1))
    class_folders(tmp_path / "data" / "test", dict.fromkeys("bc", 1))
    assert "The class b is in both train and test" in refusal(tmp_path / "data", cache)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a", "cannot be decoded"),
        (b"", "it is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "it is no image"),
        (huge_png(20000, 20000), "pixels"),
        (png(np.full((10, 12), 300, np.uint16)), "more than 8 bits"),
    ],
    ids=["truncated", "empty", "postscript", "bomb", "16-bit"],
)
def test_an_image_that_cannot_be_decoded_is_named(content, reason, folder, cache):
    (folder / "class_4" / "1.png").write_bytes(content)
    sentence = refusal(folder, cache, image_size=8)
    assert f"The image {folder / 'class_4' / '1.png'} cannot be decoded" in sentence
    assert reason in sentence


def test_bad_options_and_too_large_data_are_refused(folder, cache, monkeypatch):
    assert "image_size must be from 8 to 512, not 4" in refusal(folder, cache, image_size=4)
    assert "channels must be 1 (grey) or 3 (RGB), not 2" in refusal(folder, cache, channels=2)
    monkeypatch.setattr(image_files, "MOST_BYTES", 10**4)
    assert "would take" in refusal(folder, cache)


def test_a_killed_preparation_leaves_no_cache_and_is_cleared_after_a_day(tmp_path):
    target = tmp_path / "cache" / "key"
    killed = data_dirs.preparing(target)
    temporary = killed.__enter__()
    (temporary / "half").write_text("")
    with data_dirs.preparing(target) as other:
        (other / "whole").write_text("")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["whole"]
    assert temporary.is_dir()
    day_ago = time.time() - 25 * 60 * 60
    os.utime(temporary, (day_ago, day_ago))
    with data_dirs.preparing(tmp_path / "cache" / "other_key"):
        assert not temporary.is_dir()


def test_of_two_preparations_at_once_the_first_stays(tmp_path):
    target = tmp_path / "key"
    with data_dirs.preparing(target) as second:
        (second / "second").write_text("")
        with data_dirs.preparing(target) as first:
            (first / "first").write_text("")
    assert [path.name for path in target.iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_damaged_cache_says_what_to_delete(folder, cache):
    image_folder.load(folder, image_size=8)
    (arrays,) = cache.rglob("*.npz")
    arrays.write_bytes(arrays.read_bytes()[:1000])
    with pytest.raises(OptionError, match=f"delete {arrays.parent} and"):
        image_folder.load(folder, image_size=8)


def test_a_missing_package_says_how_to_install_it(folder, cache, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    assert "needs Pillow: pip install -e '.[data]'" in refusal(folder, cache)


def test_data_sets_are_loaded_by_name(folder, monkeypatch):
    monkeypatch.setenv("GEMBML_DATA_DIR", str(folder))
    by_default = datasets.load("image_folder", image_size=8)
    assert by_default.names == datasets.load("image_folder", folder, image_size=8).names


def test_unknown_data_sets_and_options_are_refused():
    with pytest.raises(OptionError, match="one of omniglot, mini_imagenet, image_folder, not cub"):
        datasets.load("cub")
    with pytest.raises(OptionError, match=r"omniglot has no option size; it has split\."):
        datasets.load("omniglot", size=3)
    with pytest.raises(OptionError, match=r"it has image_size, channels\."):
        datasets.load("image_folder", split="alphabet")
