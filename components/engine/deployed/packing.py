"""A `.tflite` as a gzip file that comes close to the entropy of its weights.

`gzip -9` looks for repeated strings and codes up to 16 thousand symbols with one table. Sparse weights of few values
are full of short repeats that cost more to point at than to write out, and every layer has a palette of its own. So
here every weight tensor becomes DEFLATE blocks of its own (RFC 1951), with or without pointers to repeats, whichever is
shorter; the rest of the file likewise. Any gzip reader unpacks it.
"""

import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer
from collabopt.components.engine.deployed.weights import StoredWeights, weights_of

# A block boundary costs 5 bytes and a table of symbols some 20 more.
_SMALLEST_SPAN_BYTES = 256
# RFC 1952: deflate, no name, no time, best compression, unknown system.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
_GZIP_TRAILER_BYTES = 8
# RFC 1950.
_ZLIB_FRAME_BYTES = 6


@dataclass(frozen=True)
class Deflated:
    """A piece of a file, compressed once for all figures: searching sparse bytes for repeats takes a second per MB.

    Attributes:
        repeats: With pointers to repeats: zlib's default strategy, level 9.
        symbols: Without.
    """

    repeats: "_Stream"
    symbols: "_Stream"

    @property
    def zlib_bytes(self) -> int:
        """Bytes that `zlib.compress(piece, level=9)` makes of it."""
        return len(self.repeats.ended) + _ZLIB_FRAME_BYTES

    @property
    def shortest(self) -> bytes:
        """The shorter of the two raw DEFLATE streams."""
        return min(self.repeats.ended, self.symbols.ended, key=len)

    @property
    def shortest_continued(self) -> bytes:
        """The shorter of the two, not ended but up to a whole byte, so that another stream can follow."""
        return min(self.repeats.continued, self.symbols.continued, key=len)


@dataclass(frozen=True)
class _Stream:
    ended: bytes
    continued: bytes


@dataclass(frozen=True)
class Packed:
    """A packed file and the figures found on the way.

    Attributes:
        content: A gzip file (RFC 1952).
        gzip_bytes: Size of what `gzip -9` makes of the file.
        weights: Index of a weight tensor in subgraph 0 -> its buffer, compressed.
        weight_deflated_bytes: Sum of all weight buffers' `zlib_bytes`.
    """

    content: bytes
    gzip_bytes: int
    weights: dict[int, Deflated]
    weight_deflated_bytes: int


def pack(tflite: bytes) -> Packed:
    """Compresses a file; the same bytes give the same bytes.

    Args:
        tflite: The flatbuffer.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    opened = open_flatbuffer(tflite)
    return pack_opened(opened, weights_of(opened))


def pack_opened(opened: Flatbuffer, weights: list[StoredWeights]) -> Packed:
    """Compresses an opened file; see `pack`."""
    tflite = opened.tflite
    spans = {tensor.index: _span(opened, tensor) for tensor in weights}
    # Tensors may share a buffer.
    deflated = {(start, end): deflate(tflite[start:end]) for start, end in spans.values()}
    of_size = [span for span in deflated if span[1] - span[0] >= _SMALLEST_SPAN_BYTES]
    cuts = sorted({0, *itertools.chain(*of_size), len(tflite)})
    pieces = [deflated.get(piece) or deflate(tflite[slice(*piece)]) for piece in itertools.pairwise(cuts)]
    whole = _stream(tflite, zlib.Z_DEFAULT_STRATEGY).ended
    in_pieces = b"".join(piece.shortest_continued for piece in pieces[:-1]) + pieces[-1].shortest
    trailer = struct.pack("<II", zlib.crc32(tflite), len(tflite) & 0xFFFFFFFF)
    return Packed(
        content=_GZIP_HEADER + min(whole, in_pieces, key=len) + trailer,
        gzip_bytes=len(_GZIP_HEADER) + len(whole) + _GZIP_TRAILER_BYTES,
        weights={index: deflated[span] for index, span in spans.items()},
        weight_deflated_bytes=sum(buffer.zlib_bytes for buffer in deflated.values()),
    )


def _span(opened: Flatbuffer, tensor: StoredWeights) -> tuple[int, int]:
    """Where in the file a tensor's buffer starts and ends."""
    buffer = opened.buffer(opened.graph.tensors[tensor.index])
    start = buffer.ctypes.data - np.frombuffer(opened.tflite, np.uint8).ctypes.data
    return start, start + buffer.size


def deflate(content: bytes) -> Deflated:
    """Compresses a piece of a file with and without pointers to repeats."""
    return Deflated(_stream(content, zlib.Z_DEFAULT_STRATEGY), _stream(content, zlib.Z_HUFFMAN_ONLY))


def _stream(content: bytes, strategy: int) -> _Stream:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    start = compressor.compress(content)
    other = compressor.copy()
    return _Stream(start + compressor.flush(zlib.Z_FINISH), start + other.flush(zlib.Z_SYNC_FLUSH))
