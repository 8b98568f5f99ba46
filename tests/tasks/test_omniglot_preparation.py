"""Where Omniglot's archives come from, and that they are prepared once."""

import functools
import http.server
import json
import pathlib
import shlex
import shutil
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gembml.options import OptionError
from gembml.tasks import archives, omniglot, omniglot_tfds
from tests.small_images import omniglot_members, write_zip
from tests.tasks.refused import refused
from tests.tasks.small_omniglot import BACKGROUND, EVALUATION, contents, load

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra packages: data")

refusal = functools.partial(refused, load)


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


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


@pytest.fixture
def upstream(data_dir, cache, tmp_path, monkeypatch) -> Iterator[pathlib.Path]:
    """A folder with the archives, which :data:`omniglot_tfds.URL` serves; the cache is empty."""
    del cache  # which has an address without a server
    served = tmp_path / "upstream"
    shutil.copytree(data_dir / "omniglot", served)
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(omniglot_tfds, "URL", f"http://127.0.0.1:{server.server_port}/")
        yield served
        server.shutdown()
        thread.join()


def know_upstreams_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tensorflow-datasets expect upstream's SHA-256 at the addresses that are served."""
    known = {
        omniglot_tfds.URL + name: tfds.download.checksums.UrlInfo(
            size=1, checksum=upstream, filename=name
        )
        for name, upstream in omniglot.UPSTREAM_SHA256.items()
    }
    monkeypatch.setattr(tfds.download.checksums, "get_all_url_infos", lambda: known)


@pytest.mark.usefixtures("upstream")
def test_archives_are_downloaded_once_where_there_are_none(data_dir, cache, monkeypatch):
    hashes = {n: archives.sha256(data_dir / "omniglot" / n) for n in omniglot.LABELS}
    monkeypatch.setattr(omniglot, "UPSTREAM_SHA256", hashes)
    know_upstreams_archives(monkeypatch)
    for network in (True, False):
        if not network:
            monkeypatch.setattr(omniglot_tfds, "download", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert omniglot.load(None).train.images.shape[0] == 1100
    assert not [path for path in contents(cache) if path.endswith(".zip")]


@pytest.mark.usefixtures("upstream")
def test_downloads_that_are_not_upstreams_give_warnings_and_are_prepared_once(
    data_dir, monkeypatch
):
    hashes = {n: archives.sha256(data_dir / "omniglot" / n) for n in omniglot.LABELS}
    know_upstreams_archives(monkeypatch)
    for network in (True, False):
        if not network:
            monkeypatch.setattr(omniglot_tfds, "download", None)
        with pytest.warns(UserWarning, match="SHA-256") as caught:
            assert omniglot.load(None).train.images.shape[0] == 1100
        for name, warning in zip(omniglot.LABELS, caught, strict=True):
            assert hashes[name] in str(warning.message)
            assert omniglot.UPSTREAM_SHA256[name] in str(warning.message)


def test_a_download_that_is_refused_is_deleted_and_the_next_run_downloads_anew(
    upstream, cache, monkeypatch
):
    whole = (upstream / EVALUATION).read_bytes()
    (upstream / EVALUATION).write_bytes(whole[: len(whole) // 2])
    know_upstreams_archives(monkeypatch)
    for _ in range(2):
        sentence = refusal(None, cache)
        assert "the next run downloads it again" in sentence
        assert f"{omniglot_tfds.URL}{EVALUATION} is not a whole zip archive" in sentence
        assert str(cache) not in sentence  # where it was
    assert contents(cache) == ["omniglot"]
    (upstream / EVALUATION).write_bytes(whole)
    assert load(None).train.images.shape[0] == 1100


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sha256": {}}'])
def test_a_damaged_record_of_a_download_says_what_to_delete(text, cache):
    folder = cache / "omniglot" / "downloaded"
    folder.mkdir(parents=True)
    (folder / "archives.json").write_text(text)
    with pytest.raises(OptionError, match=f"delete {folder} and Omniglot is downloaded again"):
        load(None)


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
    assert f"lacks {EVALUATION}: put {EVALUATION} from http" in refusal(tmp_path, cache)


@pytest.mark.parametrize("named", [True, False])
def test_no_archive_and_no_network_says_what_to_put_where(named, tmp_path, cache):
    sentence = refusal(tmp_path if named else None, cache)
    assert f"put {BACKGROUND} and {EVALUATION}" in sentence
    folder = (tmp_path if named else pathlib.Path("DATA_DIR")) / "omniglot"
    assert shlex.split(sentence.split("`")[1]) == [
        *("curl", "--fail", "-L", "--create-dirs", "--output-dir", str(folder)),
        *("--remote-name-all", *(omniglot_tfds.URL + name for name in (BACKGROUND, EVALUATION))),
    ]
    assert f"into {folder}, " in sentence
    assert "Connection refused" in sentence


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
