"""miniImageNet in its three layouts."""

import functools
import pathlib
import pickle
import shlex
from typing import Any

import numpy as np
import pytest

from gembml.tasks import image_files, mini_imagenet
from gembml.tasks.images import Splits
from tests.small_images import class_folders, png
from tests.tasks.refused import refused

pytestmark = pytest.mark.usefixtures("cache")

refusal = functools.partial(refused, mini_imagenet.load)
PARTS = {"train": 64, "val": 16, "test": 20}


def names(part: str) -> list[str]:
    return [f"n{part}{i:02}" for i in range(PARTS[part])]


def write_folders(folder: pathlib.Path) -> None:
    for part in PARTS:
        class_folders(folder / part, dict.fromkeys(names(part), 1))


def write_csv(folder: pathlib.Path) -> None:
    (folder / "images").mkdir(parents=True)
    for part in PARTS:
        lines = ["filename,label"]
        for c, name in enumerate(names(part)):
            lines.append(f"{name}0001.png,{name}")
            pixels = np.full((10, 12), 10 * c % 256, np.uint8)
            (folder / "images" / f"{name}0001.png").write_bytes(png(pixels))
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def write_pickles(folder: pathlib.Path, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, classes in PARTS.items():
        values = (10 * np.arange(classes) % 256).astype(np.uint8)
        content: dict[str, Any] = {
            "image_data": np.broadcast_to(values[:, None, None, None], (classes, 84, 84, 3)).copy(),
            "class_dict": {name: [i] for i, name in enumerate(names(part))},
        }
        content.update(changes)
        (folder / f"mini-imagenet-cache-{part}.pkl").write_bytes(pickle.dumps(content))


LAYOUTS = {"folders": write_folders, "csv": write_csv, "pickles": write_pickles}


def load(folder: pathlib.Path | None, layout: str = "") -> Splits:
    return mini_imagenet.load(folder, allow_pickle=layout == "pickles")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_classes(layout, inside, tmp_path):
    LAYOUTS[layout](tmp_path / "data" / "mini_imagenet" if inside else tmp_path / "data")
    splits = load(tmp_path / "data", layout)
    parts = {"train": splits.train, "val": splits.validation, "test": splits.test}
    for (part, data), found in zip(parts.items(), splits.names.values(), strict=True):
        assert list(found) == names(part)
        assert data.images.dtype == np.uint8
        assert data.images.shape == (PARTS[part], 1, 84, 84, 3)
        expected = 10 * np.arange(PARTS[part]) % 256
        np.testing.assert_array_equal(
            data.images, np.broadcast_to(expected.reshape(-1, 1, 1, 1, 1), data.images.shape)
        )
        np.testing.assert_array_equal(data.counts, 1)


def test_a_second_load_reads_the_cache(tmp_path, monkeypatch):
    write_csv(tmp_path / "data")
    load(tmp_path / "data")
    monkeypatch.setattr(image_files, "_read", None)
    load(tmp_path / "data")


def test_nothing_there_says_what_is_needed(tmp_path, cache):
    (tmp_path / "data").mkdir()
    for folder in (None, tmp_path / "data", tmp_path / "missing"):
        sentence = refusal(folder, cache)
        assert ("does not exist" in sentence) == (folder == tmp_path / "missing")
        for layout in ("folder for each class", "train.csv", "mini-imagenet-cache-train.pkl"):
            assert layout in sentence
        target = (folder or pathlib.Path("DATA_DIR")) / "mini_imagenet"
        assert shlex.split(sentence.split("`")[1]) == [
            *("curl", "--fail", "-L", "--create-dirs", "--output-dir", str(target)),
            "--remote-name-all",
            *(f"{mini_imagenet.LISTS}{name}.csv" for name in ("train", "val", "test")),
        ]
        assert f"the lists go into {target}, with `" in sentence
        assert f"into {target / 'images'}: " in sentence
        assert "ILSVRC 2012 training set" in sentence


def test_a_folder_of_the_data_s_name_is_its_own(tmp_path, cache):
    folder = tmp_path / "mini_imagenet"
    assert f"the lists go into {folder}, " in refusal(folder, cache)


def test_pickles_are_refused_without_permission(tmp_path, cache):
    write_pickles(tmp_path)
    sentence = refusal(tmp_path, cache)
    assert "reading a pickle runs whatever code it contains" in sentence
    assert "--allow_pickle" in sentence


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def test_without_permission_no_code_in_a_pickle_runs(tmp_path, cache):
    write_pickles(tmp_path, evil=Evil(tmp_path / "evil"))
    refusal(tmp_path, cache)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_data": None}, "cannot be read as a pickle of image_data and class_dict"),
        ({"class_dict": {"n": [10**6]}}, "cannot be read as a pickle"),
        ({"image_data": np.zeros((64, 84, 84, 3))}, "holds float64 images"),
        ({"image_data": np.zeros((64, 32, 32, 3), np.uint8)}, "not uint8 [n, 84, 84, 3]"),
        ({"class_dict": {"n": []}}, "has a class without an image"),
        ({"class_dict": {"n": [0]}}, "has 64 classes for train, and here are 1"),
    ],
)
def test_other_pickles_are_refused(changes, reason, tmp_path, cache):
    write_pickles(tmp_path, **changes)
    assert reason in refusal(tmp_path, cache, allow_pickle=True)


@pytest.mark.parametrize("again", [5, 5 - 64])
def test_an_image_that_a_pickle_has_twice_is_refused(again, tmp_path, cache):
    classes = {name: [i] for i, name in enumerate(names("train"))}
    write_pickles(tmp_path, class_dict=classes | {names("train")[7]: [7, again]})
    sentence = refusal(tmp_path, cache, allow_pickle=True)
    assert "has its image 5 twice, in the class ntrain05 and in ntrain07" in sentence
    write_pickles(tmp_path, class_dict=classes | {names("train")[5]: [5, again]})
    sentence = refusal(tmp_path, cache, allow_pickle=True)
    assert "has its image 5 twice, in the class ntrain05 and again there" in sentence


def test_a_class_in_two_pickles_is_refused(tmp_path, cache):
    write_pickles(tmp_path)
    path = tmp_path / "mini-imagenet-cache-test.pkl"
    content = pickle.loads(path.read_bytes())
    content["class_dict"]["ntrain03"] = content["class_dict"].pop("ntest03")
    path.write_bytes(pickle.dumps(content))
    sentence = refusal(tmp_path, cache, allow_pickle=True)
    assert "The class ntrain03 is in both mini-imagenet-cache-train.pkl and mini" in sentence


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("ntest030001.png,ntest03", "twice in test.csv"),
        ("ntest030001.png,ntest04", "twice in test.csv"),
        ("ntrain030001.png,ntest03", "in both train.csv and test.csv"),
    ],
)
def test_an_image_that_is_listed_twice_is_refused(line, where, tmp_path, cache):
    write_csv(tmp_path)
    with (tmp_path / "test.csv").open("a") as file:
        file.write(f"{line}\n")
    assert f"{line.split(',')[0]} is listed {where}" in refusal(tmp_path, cache)


def test_what_is_no_pickle_is_refused(tmp_path, cache):
    write_pickles(tmp_path)
    (tmp_path / "mini-imagenet-cache-val.pkl").write_text("<html>")
    assert "val.pkl cannot be read as a pickle" in refusal(tmp_path, cache, allow_pickle=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "is no list with the columns filename and label"),
        ("filename,label\n../secret.jpg,n01\n", "names no file in images: '../secret.jpg'"),
        ("filename,label\nn01.jpg\n", "names no file in images"),
        (f"filename,label\n{300 * 'n'}.jpg,n01\n", "n.jpg that val.csv lists is missing"),
        ("filename,label\ngone.jpg,n01\n", "gone.jpg that val.csv lists is missing"),
        ("filename,label\n", "has 16 classes for validation, and here are 0"),
    ],
)
def test_bad_lists_are_refused(text, reason, tmp_path, cache):
    write_csv(tmp_path)
    (tmp_path / "val.csv").write_text(text)
    assert reason in refusal(tmp_path, cache)


def test_a_list_may_start_with_a_byte_order_mark(tmp_path):
    write_csv(tmp_path)
    (tmp_path / "val.csv").write_text((tmp_path / "val.csv").read_text(), encoding="utf-8-sig")
    assert load(tmp_path).names["validation"] == tuple(names("val"))


def test_other_classes_and_bad_images_are_refused(tmp_path, cache):
    write_folders(tmp_path)
    bad = tmp_path / "train" / "ntrain07" / "0.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    assert f"The image {bad} cannot be decoded" in refusal(tmp_path, cache)
    bad.write_bytes(good)
    class_folders(tmp_path / "test", {"more": 1})
    assert "has 20 classes for test, and here are 21" in refusal(tmp_path, cache)
