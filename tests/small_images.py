"""Small archives and folders of images, laid out as the real ones."""

import io
import pathlib
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from gembml.tasks.omniglot import LABELS, VALIDATION_ALPHABETS

BACKGROUND = (*VALIDATION_ALPHABETS, *(f"Alphabet_({i})" for i in range(26)))
EVALUATION = tuple(f"Other_{i}" for i in range(20))
ALPHABETS = {"images_background.zip": BACKGROUND, "images_evaluation.zip": EVALUATION}


def png(pixels: np.ndarray) -> bytes:
    """An image as a PNG file; of booleans one with 1 bit per pixel."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of some bytes that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def character(label: int, drawer: int) -> bytes:
    """105 x 105, 1 bit, ink is 0: the label's bits as blocks at the top, the drawer's below."""
    paper = np.ones((105, 105), bool)
    for bit in range(11):
        if label >> bit & 1:
            paper[5:25, 9 * bit : 9 * bit + 8] = False
    paper[60:80, 20 * drawer : 20 * drawer + 15] = False
    return png(paper)


def omniglot_members(name: str, drawers: int = 2) -> dict[str, bytes]:
    """What one of Omniglot's archives holds, with fewer drawers."""
    members = {}
    alphabets, folder = ALPHABETS[name], name.removesuffix(".zip")
    for i, label in enumerate(LABELS[name]):
        path = f"{folder}/{alphabets[i % len(alphabets)]}/character{i // len(alphabets) + 1:02}"
        for drawer in range(drawers):
            members[f"{path}/{label + 1:04}_{drawer + 1:02}.png"] = character(label, drawer)
    return members


def write_zip(path: pathlib.Path, members: dict[str, bytes]) -> None:
    """A zip archive of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def omniglot_archives(data_dir: pathlib.Path) -> pathlib.Path:
    """A data folder with both archives."""
    for name in LABELS:
        write_zip(data_dir / "omniglot" / name, omniglot_members(name))
    return data_dir


def class_folders(
    folder: pathlib.Path, classes: dict[str, int], size: tuple[int, int] = (12, 10)
) -> None:
    """Folders of grey images (width, height): image i of class c is all (10 c + i) mod 256."""
    for c, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full(size[::-1], (10 * c + i) % 256, np.uint8)
            (folder / name / f"{i}.png").write_bytes(png(pixels))
