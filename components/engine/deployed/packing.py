"""A `.tflite` as a gzip file that comes close to the entropy of its weights.

`gzip -9` looks for repeated strings and codes up to 16 thousand symbols with one table. Sparse weights of few values
are full of short repeats that cost more to point at than to write out, and every layer has a palette of its own. So
here every weight tensor becomes DEFLATE blocks of its own (RFC 1951), with or without pointers to repeats, whichever is
shorter; the rest of the file likewise. Any gzip reader unpacks it.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from collabopt.components.engine.deployed.flatbuffer import open_flatbuffer
from collabopt.components.engine.deployed.weights import weights_of

_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
# A block boundary costs 5 bytes and a table of symbols some 20 more.
_SMALLEST_SPAN_BYTES = 256
# RFC 1952: deflate, no name, no time, best compression, unknown system.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def pack(tflite: bytes) -> bytes:
    """Compresses a file; the same bytes give the same bytes.

    Args:
        tflite: The flatbuffer.

    Returns:
        A gzip file (RFC 1952).

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    whole = _deflated(tflite, zlib.Z_DEFAULT_STRATEGY, last=True)
    cuts = [0, *(edge for span in _weight_spans(tflite) for edge in span), len(tflite)]
    pieces = [tflite[start:end] for start, end in itertools.pairwise(cuts) if end > start]
    packed = b"".join(shortest_deflate(piece, last=False) for piece in pieces[:-1]) + shortest_deflate(pieces[-1])
    shortest = min(whole, packed, key=len)
    return _GZIP_HEADER + shortest + struct.pack("<II", zlib.crc32(tflite), len(tflite) & 0xFFFFFFFF)


def shortest_deflate(content: bytes, *, last: bool = True) -> bytes:
    """The shorter raw DEFLATE stream of a piece of a file, ended on a whole byte."""
    return min((_deflated(content, strategy, last=last) for strategy in _STRATEGIES), key=len)


def _deflated(content: bytes, strategy: int, *, last: bool) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return compressor.compress(content) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _weight_spans(tflite: bytes) -> Iterator[tuple[int, int]]:
    """Where in the file the larger weight tensors lie, in order."""
    opened = open_flatbuffer(tflite)
    start_of_file = np.frombuffer(tflite, np.uint8).ctypes.data
    buffers = [opened.buffer(opened.graph.tensors[tensor.index]) for tensor in weights_of(opened)]
    starts = {buffer.ctypes.data - start_of_file: buffer.size for buffer in buffers}
    yield from ((start, start + size) for start, size in sorted(starts.items()) if size >= _SMALLEST_SPAN_BYTES)
