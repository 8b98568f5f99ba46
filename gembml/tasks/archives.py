"""Reading zip archives that somebody else made: nothing is extracted, everything is bounded."""

import hashlib
import lzma
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from gembml.options import OptionError

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # of bz2 also
    ValueError,
    IndexError,
    MemoryError,  # an LZMA header that asks for too much
)


class Bounds(NamedTuple):
    """How large an archive may be when unpacked."""

    members: int
    member_bytes: int
    total_bytes: int


def sha256(path: pathlib.Path) -> str:
    """A file's SHA-256 as hexadecimal digits.

    Raises:
      OptionError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}).") from error


def read_zip(path: pathlib.Path, bounds: Bounds) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a zip archive, in its order, one at a time.

    Raises:
      OptionError: the file is no zip archive or not a whole one, a member's name leads out of the
        archive's folder, a member's contents are damaged, encrypted or compressed in an unknown
        way, or a size exceeds the bounds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(path, members, bounds)
            for member in members:
                yield member.filename, _read(path, archive, member)
    except OptionError:  # a ValueError
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, struct.error) as error:
        raise OptionError(
            f"{path} is not a whole zip archive ({error}); download it again."
        ) from error
    except NotImplementedError as error:  # a later version of the format
        raise OptionError(f"{path} is a zip archive that cannot be read ({error}).") from error


def _read(path: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        # zipfile reads no more than the declared size and compares the checksum of that.
        return archive.read(member)
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise OptionError(
            f"{path} is not a whole zip archive (its member {member.filename!r} is damaged: "
            f"{reason}); download it again."
        ) from error
    except RuntimeError as error:  # encryption, unknown compression
        raise OptionError(
            f"{path} is a zip archive with a member that cannot be read: {error} "
            f"({member.filename!r})."
        ) from error


def _check(path: pathlib.Path, members: list[zipfile.ZipInfo], bounds: Bounds) -> None:
    total = sum(member.file_size for member in members)
    if len(members) > bounds.members or total > bounds.total_bytes:
        raise OptionError(
            f"{path} would unpack to {len(members)} files of {total} bytes in all, where at most "
            f"{bounds.members} files and {bounds.total_bytes} bytes are plausible."
        )
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise OptionError(
                f"{path} has a member that leads out of its folder: {member.filename!r}."
            )
        if member.file_size > bounds.member_bytes:
            raise OptionError(
                f"{path} has a member of {member.file_size} bytes, where at most "
                f"{bounds.member_bytes} are plausible: {member.filename!r}."
            )
