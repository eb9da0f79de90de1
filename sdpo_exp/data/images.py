"""From stored images to RGB: every format that pairs come in, and a reason for what is not one."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sdpo_exp.data.embedded import embedded_image
from sdpo_exp.data.numbers import shortened
from sdpo_exp.errors import BadRow

# Pillow's own limit. It warns above it and refuses above twice of it; here it is the end.
MAX_PIXELS = 89_478_485
# What begins so is no path: an address, or else a data URI.
_SCHEME = re.compile(r"(https?|ftp|s3|gs|hf)://|data:", re.IGNORECASE)


def decode(data: Any, row: str, folder: Path | None = None) -> Image.Image:
    """An upright 8-bit RGB image.

    Turned as its EXIF orientation says; transparency shows white; 16-bit grey is scaled to 8 bits;
    CMYK goes through Pillow's plain conversion; colour profiles are not applied. Of an animation
    it is the first frame.

    Args:
        data: the bytes of a file, a PIL image, a path, base64 or a data URI, or a mapping with
            `bytes` or `path` as `datasets` stores images.
        row: what messages call the row.
        folder: what relative paths are relative to.

    Raises:
        BadRow: there is no image, it is damaged, or it has more than `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            # The limit is checked here, and a damaged EXIF block does no harm.
            warnings.simplefilter("ignore")
            image = _open(data, row, folder)
            if image.width * image.height > MAX_PIXELS:
                raise BadRow(row, _too_large(image))
            return _to_rgb(ImageOps.exif_transpose(image), row)
    except BadRow:
        raise
    except Image.DecompressionBombError as error:
        raise BadRow(row, f"image too large ({error})") from None
    except UnidentifiedImageError:
        raise BadRow(row, "not an image of a known format") from None
    # Decoders raise nearly anything on damaged input: struct.error, SyntaxError, zlib.error, ...
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadRow(row, f"damaged image ({reason})") from None


def _open(data: Any, row: str, folder: Path | None) -> Image.Image:
    data = read_bytes(data, row, folder)
    if isinstance(data, Image.Image):
        return data
    return Image.open(io.BytesIO(data))


def read_bytes(data: Any, row: str, folder: Path | None = None) -> bytes | Image.Image:
    """The bytes behind whatever `decode` takes; a PIL image stays one.

    Raises:
        BadRow: there are none.
    """
    if isinstance(data, Mapping):
        data = data.get("bytes") if data.get("bytes") is not None else data.get("path")
    if data is None:
        raise BadRow(row, "no image (null)")
    if isinstance(data, Image.Image):
        return data
    if isinstance(data, str):
        data = _written_out(data, row)
    if isinstance(data, str | Path):
        data = _read_file(data, row, folder)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BadRow(row, f"no image but a {type(data).__name__}")
    if len(data) == 0:
        raise BadRow(row, "empty image (zero bytes)")
    return bytes(data)


def _written_out(text: str, row: str) -> bytes | str:
    """The image that stands in the text, or the text where it can be a path."""
    if not text.strip():
        raise BadRow(row, "no image (an empty cell)")
    content = embedded_image(text)
    if content is None and (scheme := _SCHEME.match(text)) is not None:
        needed = "fetch it, and give its path" if scheme[1] else "it should be base64"
        kind = "an address" if scheme[1] else "a data URI"
        raise BadRow(row, f"no image file but {kind}; {needed} ({shortened(text)})")
    return text if content is None else content


def _read_file(path: str | Path, row: str, folder: Path | None) -> bytes:
    try:
        return image_path(path, folder).read_bytes()
    except OSError as error:
        reason = f"{shortened(path)}: {error.strerror}"
        raise BadRow(row, f"image file cannot be read ({reason})") from None
    except ValueError:  # a null character in it
        raise BadRow(row, f"no path of an image ({shortened(path)!r})") from None


def image_path(path: str | Path, folder: Path | None) -> Path:
    """Where an image file is; `a\\b.png`, as tables say that were written on Windows, is `a/b.png`.

    Raises:
        OSError, ValueError: it cannot be a path.
    """
    start = folder if folder is not None else Path()
    if "\\" in str(path) and not (start / path).exists():
        return start.joinpath(*PureWindowsPath(path).parts)
    return start / path


def _too_large(image: Image.Image) -> str:
    return f"image too large ({image.width} x {image.height}; the limit is {MAX_PIXELS:,} pixels)"


def _to_rgb(image: Image.Image, row: str) -> Image.Image:
    if image.mode == "F":
        raise BadRow(row, "floating-point pixels, whose range nobody knows")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's conversion clips at 255 instead of scaling.
        wide = np.asarray(image).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
