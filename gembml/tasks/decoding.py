"""Encoded images to arrays, with Pillow."""

import contextlib
import importlib
import io
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

from gembml.options import OptionError

MOST_PIXELS = 50_000_000
"""An image that claims more is refused before it is decoded."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is read; for others, such as EPS, Pillow may start another program."""
MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by the number of channels."""


def pillow() -> ModuleType:
    """Pillow's Image module.

    Raises:
      OptionError: it is not installed.
    """
    return optional("PIL.Image", "Pillow")


def optional(module: str, package: str) -> ModuleType:
    """A module that only reading data needs.

    Raises:
      OptionError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OptionError(
            f"Preparing image data needs {package}: pip install -e '.[data]'"
        ) from error


def decode(
    encoded: bytes | pathlib.Path,
    name: str,
    *,
    channels: int,
    size: tuple[int, int] | None = None,
) -> Any:
    """A Pillow image of 8 bits per channel, 1 (grey) or 3 (RGB), turned as its EXIF data say.

    Args:
      encoded: the file, or its contents.
      name: what the error calls the image.
      channels: 1 or 3; an image of another kind is converted.
      size: its width and height, if only one will do.

    Raises:
      OptionError: it does not decode, claims more than :data:`MOST_PIXELS`, or is not of ``size``.
    """
    image_module = pillow()
    try:
        source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        with image_module.open(source, formats=FORMATS) as image:  # reads no more than the header
            width, height = image.size
            if size is not None and (width, height) != size:
                raise ValueError(f"it is {width} x {height}, not {size[0]} x {size[1]} pixels")
            if width * height > MOST_PIXELS:
                raise ValueError(f"it claims {width} x {height} pixels")
            if image.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits per channel")
            image.load()
            # Photographs lie as the camera was held; EXIF data that are damaged turn nothing.
            with contextlib.suppress(Exception):
                optional("PIL.ImageOps", "Pillow").exif_transpose(image, in_place=True)
            return image.convert(MODES[channels])
    except image_module.UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise OptionError(
            f"The image {name} cannot be decoded: it is no image ({kinds})."
        ) from error
    except Exception as error:  # a decoder for each format, each with errors of its own
        raise OptionError(f"The image {name} cannot be decoded: {error}.") from error


def resized(image: Any, size: int) -> np.ndarray:
    """A Pillow image as uint8 ``[size, size, channels]``, by LANCZOS; its shape is not kept."""
    if image.size != (size, size):
        image = image.resize((size, size), pillow().Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(size, size, -1)
