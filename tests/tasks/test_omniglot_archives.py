"""Omniglot archives that are damaged, dangerous or not what they should be are refused."""

import functools
import pathlib
import zipfile

import numpy as np
import pytest

from gembml.tasks import archives, omniglot
from tests.small_images import huge_png, omniglot_members, png, write_zip
from tests.tasks.refused import refused
from tests.tasks.small_omniglot import BACKGROUND, EVALUATION, load

pytest.importorskip("tensorflow_datasets", reason="needs the extra packages: data")

refusal = functools.partial(refused, load)


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
