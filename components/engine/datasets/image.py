"""One image file to one array of bytes."""

import io

import numpy as np

from collabopt.components.engine.errors import CollaboptError


def decode_image(content: bytes, shape: tuple[int, int, int], *, name: str) -> np.ndarray:
    """Decodes PNG, JPEG or BMP, and resizes it without keeping its proportions.

    Resizing is bilinear and anti-aliased. EXIF orientation is ignored, and transparency dropped, as by
    `tf.io.decode_image`.

    Args:
        content: The file's bytes.
        shape: Height and width in pixels, and channels (1 for grey, 3 for RGB).
        name: Name of the image, for messages.

    Returns:
        uint8 of the given shape.

    Raises:
        CollaboptError: The bytes are no image, or not all of one.
    """
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP")) as file:
            image = file.copy()
    except UnidentifiedImageError as error:
        raise CollaboptError(
            "this image does not decode: it is no PNG, JPEG or BMP file", where=name, todo="replace or remove it"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CollaboptError(f"this image does not decode: {error}", where=name, todo="replace or remove it") from error
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip instead of scale
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(shape)
