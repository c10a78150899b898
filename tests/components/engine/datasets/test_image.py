import io

import numpy as np
import pytest
from PIL import Image

from collabopt.components.engine.datasets.image import decode_image
from collabopt.components.engine.errors import CollaboptError


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_an_image_of_the_right_size_keeps_its_pixels(kind):
    np.testing.assert_array_equal(decode_image(encoded(COLOURS, kind), (4, 6, 3), name=""), COLOURS)


def test_jpeg():
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    decoded = decode_image(encoded(flat, "JPEG"), (8, 8, 3), name="")
    assert np.abs(decoded.astype(int) - flat).max() <= 3


def test_resizing_keeps_what_is_where():
    halves = np.zeros((20, 10, 3), np.uint8)
    halves[:, 5:] = 255
    decoded = decode_image(encoded(halves), (4, 6, 3), name="")
    assert (decoded.shape, decoded.dtype) == ((4, 6, 3), np.uint8)
    assert decoded[:, :2].max() == 0
    assert decoded[:, 4:].min() == 255


def test_shrinking_does_not_alias():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    decoded = decode_image(encoded(stripes), (8, 8, 1), name="")
    assert 110 < decoded.min() <= decoded.max() < 145


def test_grey_and_colour_become_each_other():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(decode_image(encoded(grey), (4, 6, 3), name=""), np.stack([grey] * 3, axis=-1))
    white = np.full((4, 6, 3), 255, np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(white), (4, 6, 1), name=""), np.full((4, 6, 1), 255))


def test_16_bit_grey_is_scaled_to_bytes():
    deep = (np.arange(24, dtype=np.uint16) * 2000).reshape(4, 6)
    np.testing.assert_array_equal(decode_image(encoded(deep), (4, 6, 1), name="")[..., 0], deep >> 8)


def test_transparency_is_dropped():
    alpha = np.full((4, 6, 1), 7, np.uint8)
    np.testing.assert_array_equal(
        decode_image(encoded(np.concatenate([COLOURS, alpha], -1)), (4, 6, 3), name=""), COLOURS
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_an_image_that_is_cut_anywhere_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    for end in range(0, len(content) - 40, 23):
        with pytest.raises(CollaboptError, match="this image does not decode") as caught:
            decode_image(content[:end], (16, 16, 3), name="cat.png")
        assert caught.value.where == "cat.png"


@pytest.mark.parametrize("content", [b"", b"text", encoded(COLOURS, "GIF")], ids=["empty", "text", "another format"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(CollaboptError, match="it is no PNG, JPEG or BMP file") as caught:
        decode_image(content, (4, 6, 3), name="cat.png")
    assert caught.value.where == "cat.png"


def test_a_png_with_a_broken_chunk_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    before, first, second = encoded(noise).split(b"IDAT")
    with pytest.raises(CollaboptError, match="this image does not decode: broken PNG"):
        decode_image(before + b"IDAT" + first + b"\x00DAT" + second, (200, 200, 3), name="cat.png")


def test_a_header_that_lies_is_refused():
    content = bytearray(encoded(COLOURS, "BMP"))
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(CollaboptError, match="could be decompression bomb"):
        decode_image(bytes(content), (4, 6, 3), name="cat.bmp")
    content = encoded(COLOURS).replace(b"\x00\x00\x00\x0dIHDR", b"\x00\x00\x00\x05IHDR")
    with pytest.raises(CollaboptError, match="this image does not decode"):
        decode_image(content, (4, 6, 3), name="cat.png")
