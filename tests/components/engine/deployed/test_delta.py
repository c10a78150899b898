import bsdiff4
import numpy as np
import pytest

from collabopt.components.engine.deployed.delta import FORMATS, Patch, make_patches
from collabopt.components.engine.errors import CollaboptError

RANDOM = np.random.default_rng(0)


def weights(size=20_000):
    return RANDOM.integers(0, 256, size, dtype=np.uint8)


def moved(old):
    """Half of the weights moved by one, as a further training does."""
    return np.where(RANDOM.random(len(old)) < 0.5, old + 1, old).astype(np.uint8)


OLD = weights()
CASES = {
    "another training": weights(),
    "trained on": moved(OLD),
    "one tensor of ten": np.concatenate([OLD[:8000], weights(2000), OLD[10_000:]]),
    "longer": np.concatenate([OLD, weights(500)]),
    "empty": OLD[:0],
}


@pytest.mark.parametrize("new", CASES.values(), ids=CASES)
def test_every_patch_gives_the_new_file(new):
    patches = make_patches(OLD.tobytes(), new.tobytes())
    assert tuple(patch.format for patch in patches) == FORMATS
    assert {patch.applied_to(OLD.tobytes()) for patch in patches} == {new.tobytes()}
    assert make_patches(OLD.tobytes(), new.tobytes()) == patches


def test_what_each_format_is_good_for():
    bsdiff, zst = make_patches(OLD.tobytes(), CASES["trained on"].tobytes())
    assert len(bsdiff.content) < len(OLD) / 2 < len(zst.content)
    bsdiff, zst = make_patches(OLD.tobytes(), CASES["one tensor of ten"].tobytes())
    assert len(zst.content) < len(bsdiff.content) < len(OLD) / 5


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("damage", [lambda patch: patch[:-5], lambda patch: patch[:10], lambda patch: b""])
def test_a_damaged_patch_is_refused(format, damage):
    patch = next(p for p in make_patches(OLD.tobytes(), CASES["trained on"].tobytes()) if p.format == format)
    with pytest.raises(CollaboptError, match="the patch cannot be applied"):
        Patch(format, damage(patch.content)).applied_to(OLD.tobytes())


def test_the_patch_on_another_file_never_passes_for_the_new_one():
    new = CASES["trained on"].tobytes()
    bsdiff, zst = make_patches(OLD.tobytes(), new)
    assert bsdiff.applied_to(weights().tobytes()) != new
    with pytest.raises(CollaboptError, match="the patch cannot be applied"):
        zst.applied_to(weights().tobytes())


def test_a_patch_that_does_not_give_the_new_file_is_never_handed_out(monkeypatch):
    make = bsdiff4.diff
    monkeypatch.setattr(bsdiff4, "diff", lambda old, new: make(old, new[:-1] + b"?"))
    with pytest.raises(CollaboptError, match="a bsdiff patch does not give the file that it was made for"):
        make_patches(OLD.tobytes(), CASES["trained on"].tobytes())
