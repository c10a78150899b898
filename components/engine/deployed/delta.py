"""Patches from one `.tflite` to another, in two formats that devices know how to apply.

- `bsdiff` (BSDIFF40, https://www.daemonology.net/bsdiff/; `bspatch`, Android's and Chromium's updaters): adds byte to
  byte, so weights that a further training has moved a little cost little.
- `zst` (Zstandard with the old file as prefix, https://github.com/facebook/zstd/wiki/Zstandard-as-a-patching-engine;
  `zstd -d --patch-from=OLD`, `ZSTD_DCtx_refPrefix`): copies what has not changed, and codes the rest well.

Weights trained from another seed have nothing in common: then a bsdiff is larger than the packed file, and Zstandard
saves the graph alone.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from collabopt.components.engine.errors import CollaboptError

Format = Literal["bsdiff", "zst"]
FORMATS: tuple[Format, ...] = get_args(Format)

_ZSTD_LEVEL = 22
# Of a window, in bits: what decoders allow by default, 128 MiB.
_SMALLEST_WINDOW, _LARGEST_WINDOW = 10, 27


@dataclass(frozen=True)
class Patch:
    """A patch.

    Attributes:
        format: Its format; also the ending of a file that holds it.
        content: Its bytes.
    """

    format: Format
    content: bytes

    def applied_to(self, old: bytes) -> bytes:
        """Does what a device does; which must then compare the digest, as a bsdiff takes any old file.

        Args:
            old: The file that it has.

        Returns:
            The new file.

        Raises:
            CollaboptError: The patch is damaged, or (as far as the format shows it) not from that file.
        """
        try:
            return _bsdiff_applied(old, self.content) if self.format == "bsdiff" else _zst_applied(old, self.content)
        except ValueError as error:
            raise CollaboptError(
                f"the patch cannot be applied: {error}", todo="apply it to the very file that it was made from"
            ) from error


def make_patches(old: bytes, new: bytes) -> tuple[Patch, ...]:
    """Makes a patch of every format, and proves it: applied to the old file it has given the new one.

    The same bytes and versions of the libraries give the same patches.

    Args:
        old: The file that a device has.
        new: The file that it is to get.

    Raises:
        CollaboptError: A patch does not give the new file.
    """
    patches = (Patch("bsdiff", _bsdiff(old, new)), Patch("zst", _zst(old, new)))
    for patch in patches:
        if patch.applied_to(old) != new:
            raise CollaboptError(f"a {patch.format} patch does not give the file that it was made for")
    return patches


def _bsdiff(old: bytes, new: bytes) -> bytes:
    import bsdiff4

    patch: bytes = bsdiff4.diff(old, new)
    return patch


def _bsdiff_applied(old: bytes, patch: bytes) -> bytes:
    import bsdiff4

    try:
        new: bytes = bsdiff4.patch(old, patch)
    except (OSError, EOFError) as error:  # of bzip2
        raise ValueError(str(error)) from error
    return new


def _zst(old: bytes, new: bytes) -> bytes:
    from backports.zstd import CompressionParameter, ZstdCompressor, ZstdDict

    reach = (len(old) + len(new)).bit_length()
    options: dict[int, int] = {
        CompressionParameter.compression_level: _ZSTD_LEVEL,
        CompressionParameter.window_log: min(max(reach, _SMALLEST_WINDOW), _LARGEST_WINDOW),
        CompressionParameter.enable_long_distance_matching: 1,
        CompressionParameter.checksum_flag: 1,  # 4 bytes, by which a device that has another file notices
    }
    compressor = ZstdCompressor(options=options, zstd_dict=ZstdDict(old, is_raw=True).as_prefix)
    compressor.set_pledged_input_size(len(new))
    return compressor.compress(new, ZstdCompressor.FLUSH_FRAME)


def _zst_applied(old: bytes, patch: bytes) -> bytes:
    from backports.zstd import ZstdDict, ZstdError, decompress

    try:
        return decompress(patch, zstd_dict=ZstdDict(old, is_raw=True).as_prefix)
    except ZstdError as error:
        raise ValueError(str(error)) from error
