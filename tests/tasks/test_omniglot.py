"""Omniglot from archives of the real layout, and the real one where it is."""

import functools
import http.server
import json
import os
import pathlib
import threading
import warnings
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gembml.options import OptionError
from gembml.tasks import archives, omniglot, omniglot_tfds
from gembml.tasks.data_dirs import default_data_dir
from gembml.tasks.images import Splits
from tests.small_images import huge_png, omniglot_archives, omniglot_members, png, write_zip

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra packages: data")

BACKGROUND, EVALUATION = omniglot.LABELS


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return omniglot_archives(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory, data_dir: pathlib.Path) -> pathlib.Path:
    """A cache in which the small archives are prepared."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMBML_CACHE_DIR", str(cache))
        load(data_dir)
    return cache


@pytest.fixture
def prepared(shared_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(shared_cache))
    return shared_cache


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(omniglot_tfds, "URL", "http://127.0.0.1:9/")
    return tmp_path / "cache"


def load(data_dir: pathlib.Path | None, **options: Any) -> Splits:
    """Without the warning that these are not upstream's archives."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Omniglot: the SHA-256")
        return omniglot.load(data_dir, **options)


def images_of(splits: Splits, character: str) -> np.ndarray:
    """``[drawers, 28, 28, 1]``."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    part = next(part for part, names in splits.names.items() if character in names)
    return np.asarray(parts[part].images[splits.names[part].index(character)])


def contents(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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


def test_a_second_load_reads_the_cache_alone(data_dir, prepared, monkeypatch):
    monkeypatch.setattr(omniglot, "_prepare", None)
    before = contents(prepared)
    load(data_dir)
    assert contents(prepared) == before


def test_other_archives_are_prepared_anew(data_dir, prepared, tmp_path, monkeypatch):
    members = omniglot_members(EVALUATION)
    members["images_evaluation/README"] = b"ignored"
    write_zip(tmp_path / EVALUATION, members)
    (tmp_path / BACKGROUND).symlink_to(data_dir / "omniglot" / BACKGROUND)
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache" / "omniglot").mkdir(parents=True)
    (before,) = prepared.glob("omniglot/*")
    (tmp_path / "cache" / "omniglot" / before.name).symlink_to(before)
    prepared_from = []
    monkeypatch.setattr(omniglot, "_prepare", lambda found, _: prepared_from.append(found))
    monkeypatch.setattr(omniglot, "read_arrays", None)
    with pytest.raises(TypeError):
        load(tmp_path)
    assert prepared_from == [{name: tmp_path / name for name in omniglot.LABELS}]
    assert len(list((tmp_path / "cache" / "omniglot").iterdir())) == 2


def test_archives_that_are_not_upstreams_give_a_warning_with_both_hashes(data_dir, prepared):
    with pytest.warns(UserWarning, match="SHA-256") as caught:
        omniglot.load(data_dir)
    hashes = {n: archives.sha256(data_dir / "omniglot" / n) for n in omniglot.LABELS}
    for name, warning in zip(omniglot.LABELS, caught, strict=True):
        for text in (name, hashes[name], omniglot.UPSTREAM_SHA256[name]):
            assert text in str(warning.message)
        shown = warnings.formatwarning(
            warning.message, warning.category, warning.filename, warning.lineno, warning.line
        )
        assert shown == f"{name}:0: UserWarning: {warning.message}\n"
    (record,) = prepared.glob("omniglot/*/archives.json")
    assert json.loads(record.read_text())["sha256"] == hashes


@pytest.mark.usefixtures("prepared")
def test_upstreams_archives_give_no_warning(data_dir, monkeypatch):
    hashes = {n: archives.sha256(data_dir / "omniglot" / n) for n in omniglot.LABELS}
    monkeypatch.setattr(omniglot, "UPSTREAM_SHA256", hashes)
    omniglot.load(data_dir)
    omniglot.load(None)  # and once prepared, they are needed no more


def test_upstreams_hashes_are_those_of_tensorflow_datasets():
    registered = tfds.download.checksums.get_all_url_infos()
    for name, value in omniglot.UPSTREAM_SHA256.items():
        assert registered[omniglot_tfds.URL + name].checksum == value


def test_the_stock_data_source_reads_what_was_prepared(prepared):
    (folder,) = prepared.glob("omniglot/*/tfds")
    raw = {"image": tfds.decode.SkipDecoding()}
    source = tfds.data_source("omniglot", split="test", data_dir=folder, decoders=raw)
    assert len(source) == 2 * 659


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("registered", [True, False])
def test_archives_are_downloaded_where_there_are_none(registered, data_dir, monkeypatch):
    handler = functools.partial(QuietHandler, directory=str(data_dir / "omniglot"))
    hashes = {n: archives.sha256(data_dir / "omniglot" / n) for n in omniglot.LABELS}
    if registered:
        monkeypatch.setattr(omniglot, "UPSTREAM_SHA256", hashes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(omniglot_tfds, "URL", url)
        # What tensorflow-datasets expects of these addresses.
        known = {
            url + name: tfds.download.checksums.UrlInfo(size=1, checksum=upstream, filename=name)
            for name, upstream in omniglot.UPSTREAM_SHA256.items()
        }
        if not registered:
            monkeypatch.setattr(tfds.download.checksums, "get_all_url_infos", lambda: known)
        try:
            if registered:
                assert load(None).train.images.shape[0] == 1100
            else:
                with pytest.warns(UserWarning, match="SHA-256") as caught:
                    assert omniglot.load(None).train.images.shape[0] == 1100
                for name, warning in zip(omniglot.LABELS, caught, strict=True):
                    assert hashes[name] in str(warning.message)
                    assert omniglot.UPSTREAM_SHA256[name] in str(warning.message)
        finally:
            server.shutdown()
            thread.join()
    if registered:
        load(None)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


def refusal(data_dir: pathlib.Path | None, cache: pathlib.Path) -> str:
    """The one sentence of the error; nothing is left in the cache."""
    with pytest.raises(OptionError) as caught:
        load(data_dir)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not [path for path in cache.glob("omniglot/*") if path.name != "downloads"]
    return sentence


def test_a_missing_folder_is_refused_with_what_to_put_there(tmp_path, cache):
    folder = tmp_path / "missing"
    sentence = refusal(folder, cache)
    assert "missing does not exist: put" in sentence
    assert f"into {folder / 'omniglot'}, " in sentence
    for name in omniglot.LABELS:
        assert omniglot_tfds.URL + name in sentence
    folder.write_text("")
    assert "missing is a file, not a folder: put" in refusal(folder, cache)


def test_one_missing_archive_is_named_with_its_address(data_dir, tmp_path, cache):
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / BACKGROUND).symlink_to(data_dir / "omniglot" / BACKGROUND)
    assert f"lacks {EVALUATION}; download it from http" in refusal(tmp_path, cache)


@pytest.mark.parametrize("named", [True, False])
def test_no_archive_and_no_network_says_what_to_put_where(named, tmp_path, cache):
    sentence = refusal(tmp_path if named else None, cache)
    assert f"put {BACKGROUND} and {EVALUATION}" in sentence
    assert "curl -L" in sentence
    assert "Connection refused" in sentence


@pytest.fixture
def bad(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Where a test puts its bad evaluation archive, beside a good background one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / BACKGROUND).symlink_to(data_dir / "omniglot" / BACKGROUND)
    return tmp_path / "data" / EVALUATION


def test_a_truncated_archive_is_refused(bad, data_dir, cache):
    whole = (data_dir / "omniglot" / EVALUATION).read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    assert "is not a whole zip archive" in refusal(bad.parent, cache)


def test_a_damaged_member_is_refused(bad, data_dir, cache):
    content = bytearray((data_dir / "omniglot" / EVALUATION).read_bytes())
    content[len(content) // 3 :][:64] = b""
    content[100:140] = bytes(40)
    bad.write_bytes(content)
    assert "is not a whole zip archive" in refusal(bad.parent, cache)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_member_is_named_whatever_its_compression(compression, bad, cache):
    with zipfile.ZipFile(bad, "w", compression) as archive:
        archive.writestr("x.png", np.random.default_rng(0).bytes(1000))
    whole = bad.read_bytes()
    beginning = f"{bad} is not a whole zip archive (its member 'x.png' is damaged: "
    start = 30 + len("x.png")  # of the contents, behind the member's own header
    for damage in (b"\xff" * 4, b"\xff" * 40, bytes(40)):
        bad.write_bytes(whole[:start] + damage + whole[start + len(damage) :])
        assert refusal(bad.parent, cache).startswith(beginning)
    middle = start + 300
    bad.write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    assert refusal(bad.parent, cache).startswith(beginning)


@pytest.mark.parametrize(
    ("offsets", "value", "reason"),
    [((6, 8), 1, "encrypted"), ((8, 10), 99, "compression")],
    ids=["encrypted", "compression"],
)
def test_a_member_that_cannot_be_read_is_named(offsets, value, reason, bad, cache):
    write_zip(bad, {"x.png": bytes(1000)})
    content = bytearray(bad.read_bytes())
    central = content.index(b"PK\x01\x02")
    for place in (offsets[0], central + offsets[1]):  # in the member's header and in the list
        content[place] = value
    bad.write_bytes(content)
    sentence = refusal(bad.parent, cache)
    assert sentence.startswith(f"{bad} is a zip archive with a member that cannot be read: ")
    assert reason in sentence
    assert "('x.png')" in sentence


def test_what_is_no_archive_is_refused(bad, cache):
    bad.write_text("<html>404</html>")
    assert "is not a whole zip archive" in refusal(bad.parent, cache)


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "..\\x.png"])
def test_members_that_lead_out_of_the_folder_are_refused(name, bad, cache):
    write_zip(bad, {name: b""})
    assert "leads out of its folder" in refusal(bad.parent, cache)


def test_a_member_of_many_bytes_is_refused(bad, cache):
    write_zip(bad, {"images_evaluation/zeros.png": bytes(2**17)})
    assert "has a member of 131072 bytes" in refusal(bad.parent, cache)


def test_too_many_bytes_in_all_are_refused(bad, cache, monkeypatch):
    monkeypatch.setattr(omniglot, "_BOUNDS", archives.Bounds(10, 1000, 1500))
    write_zip(bad.with_name(BACKGROUND + ".new"), {"a": bytes(1000), "b": bytes(1000)})
    bad.with_name(BACKGROUND + ".new").replace(bad.with_name(BACKGROUND))
    write_zip(bad, {})
    assert "would unpack to 2 files of 2000 bytes" in refusal(bad.parent, cache)


def test_a_member_that_declares_fewer_bytes_than_it_has_is_refused(bad, cache):
    write_zip(bad, {"images_evaluation/zeros.png": bytes(2**22)})
    with zipfile.ZipFile(bad) as archive:
        (member,) = archive.infolist()
    true_size, lie = member.file_size.to_bytes(4, "little"), (1000).to_bytes(4, "little")
    bad.write_bytes(bad.read_bytes().replace(true_size, lie))
    assert "Bad CRC-32" in refusal(bad.parent, cache)


def some_member(members: dict[str, bytes]) -> str:
    return sorted(members)[777]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "it is no image"),
        (huge_png(60000, 60000), "pixels"),
        (huge_png(105, 105)[:60], ""),
        (png(np.zeros((28, 28), bool)), "it is 28 x 28, not 105 x 105 pixels"),
    ],
    ids=["text", "bomb", "truncated", "size"],
)
def test_an_image_that_does_not_decode_is_named(content, reason, bad, cache):
    members = omniglot_members(EVALUATION)
    name = some_member(members)
    members[name] = content
    write_zip(bad, members)
    sentence = refusal(bad.parent, cache)
    assert f"The image {name} in {bad} cannot be decoded" in sentence
    assert reason in sentence


def test_an_archive_without_all_characters_is_refused(bad, cache):
    members = omniglot_members(EVALUATION)
    gone = some_member(members).rsplit("/", 1)[0]
    write_zip(bad, {n: content for n, content in members.items() if not n.startswith(gone)})
    assert "holds 658 characters, where Omniglot's holds 659" in refusal(bad.parent, cache)


@pytest.mark.parametrize("folder", ["other", "images_evaluation"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_drawing_that_is_there_twice_is_named(folder, bad, data_dir, cache):
    bad.write_bytes((data_dir / "omniglot" / EVALUATION).read_bytes())
    first = some_member(omniglot_members(EVALUATION))
    second = first.replace("images_evaluation", folder)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(second, omniglot_members(EVALUATION)[first])
    sentence = refusal(bad.parent, cache)
    assert f"{bad} has the drawing {second!r} twice" in sentence
    assert (f"first as {first!r}" in sentence) == (first != second)


def test_two_characters_of_one_name_are_refused(bad, cache):
    members = omniglot_members(EVALUATION)
    renamed = {
        name.replace("Other_0/character02", "Other_0/character01"): content
        for name, content in members.items()
    }
    write_zip(bad, renamed)
    assert "has Other_0/character01 as the number" in refusal(bad.parent, cache)


def test_the_archives_in_each_others_place_are_refused(data_dir, tmp_path, cache):
    for name, other in ((BACKGROUND, EVALUATION), (EVALUATION, BACKGROUND)):
        (tmp_path / name).symlink_to(data_dir / "omniglot" / other)
    assert "holds 659 characters" in refusal(tmp_path, cache)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_preparation_that_ends_midway_leaves_nothing(error, data_dir, cache, monkeypatch):
    def prepare(drawings: Any, folder: pathlib.Path) -> Any:
        del drawings
        folder.mkdir()
        (folder / "half").write_text("")
        raise error

    monkeypatch.setattr(omniglot_tfds, "prepare", prepare)
    with pytest.raises(OptionError if error is OSError else error):
        load(data_dir)
    assert contents(cache) == ["omniglot"]


def test_a_cache_that_cannot_be_written_is_refused(data_dir, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OptionError, match=r"cannot be written .*GEMBML_CACHE_DIR"):
        load(data_dir)


@pytest.mark.data
def test_the_real_omniglot(cache):
    data = default_data_dir() or pathlib.Path(__file__).parents[3] / "shared" / "data"
    folder = data / "omniglot"
    if not all((folder / name).is_file() for name in omniglot.LABELS):
        pytest.skip(f"no Omniglot archives in {folder}; GEMBML_DATA_DIR names another data folder")
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
