"""Named data sets that need no download: `example://digits` and `example://fashion-mnist`."""

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from collabopt.components.engine.datasets.source import Source, checked_samples
from collabopt.components.engine.datasets.splits import Samples
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import EXAMPLE_SCHEME

FASHION_MNIST_VARIABLE = "COLLABOPT_FASHION_MNIST"
FASHION_MNIST_DIRECTORY = "/usr/share/datasets/fashion-mnist"
# Raise it with every change to what is made of an example: it keys Kubeflow's cache.
VERSION = 1


def read_example(source: str) -> Source:
    """Reads a named example.

    Args:
        source: `example://` and a name in `EXAMPLES`.

    Raises:
        CollaboptError: There is no such example, or its files are missing or damaged.
    """
    return EXAMPLES[_known_name(source)](source)


def example_files(source: str) -> list[Path]:
    """The files that a named example is read from; none for one that comes with a package.

    Raises:
        CollaboptError: There is no such example, or a file of it is missing.
    """
    files = _fashion_mnist_files() if _known_name(source) == "fashion-mnist" else []
    for path in files:
        if not path.is_file():
            raise _not_on_this_machine(path)
    return files


def _known_name(source: str) -> str:
    name = source.removeprefix(EXAMPLE_SCHEME)
    if name not in EXAMPLES:
        known = ", ".join(EXAMPLE_SCHEME + example for example in EXAMPLES)
        raise CollaboptError(f"there is no example '{name}'", where=source, todo=f"examples: {known}")
    return name


def _digits(source: str) -> Source:
    """1,797 handwritten digits, `[n, 8, 8, 1]` with values 0..16 (scikit-learn, from UCI's optdigits)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    features = digits.images.astype(np.uint8)[..., np.newaxis]
    return Source(checked_samples(features, digits.target, name="digits", where=source), scale=1 / 16)


def _fashion_mnist(source: str) -> Source:
    """70,000 articles of clothing, `[n, 28, 28, 1]` (https://github.com/zalandoresearch/fashion-mnist)."""
    train_images, train_labels, test_images, test_labels = _fashion_mnist_files()

    def read(images: Path, labels: Path, name: str) -> Samples:
        pixels = _idx(images, axes=3)[..., np.newaxis]
        return checked_samples(pixels, _idx(labels, axes=1), name=name, where=str(images.parent))

    return Source(
        read(train_images, train_labels, "train"), {"test": read(test_images, test_labels, "t10k")}, scale=1 / 255
    )


def _fashion_mnist_files() -> list[Path]:
    directory = Path(os.environ.get(FASHION_MNIST_VARIABLE, FASHION_MNIST_DIRECTORY))
    kinds = ("images-idx3", "labels-idx1")
    return [directory / f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in kinds]


def _not_on_this_machine(path: Path) -> CollaboptError:
    return CollaboptError(
        "the files of Fashion-MNIST are not on this machine",
        where=str(path),
        todo=f"apt-get install dataset-fashion-mnist, or set {FASHION_MNIST_VARIABLE} to a directory with them",
    )


def _idx(path: Path, axes: int) -> np.ndarray:
    """Reads a gzipped IDX file of bytes: 0, 0, 8 (unsigned byte), axes, then big-endian lengths, then the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise _not_on_this_machine(path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CollaboptError(f"the file is damaged: {error}", where=str(path), todo="install it again") from error
    start = 4 + 4 * axes
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], dtype=">u4"))
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) != start + int(np.prod(shape)):
        raise CollaboptError(f"this is not an IDX file of {axes} axes", where=str(path), todo="install it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


EXAMPLES: dict[str, Callable[[str], Source]] = {"digits": _digits, "fashion-mnist": _fashion_mnist}
