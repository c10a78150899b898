import numpy as np
import pytest
import tensorflow as tf

from collabopt.components.engine.compression.structure import Structure

KERNEL = np.array([[0.0, 0.5, -1.0], [0.5, 0.0, 2.0], [-1.0, 0.5, 0.5]], np.float32)


def imposed_and_gradient(structure, kernel, upstream):
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        imposed = structure.apply(variable)
        loss = tf.reduce_sum(imposed * upstream)
    return imposed.numpy(), tf.convert_to_tensor(tape.gradient(loss, variable)).numpy()


@pytest.mark.parametrize(("sparse", "clustered"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_kernel_has_its_own_structure(sparse, clustered):
    structure = Structure.of(KERNEL, sparse=sparse, clustered=clustered)
    np.testing.assert_array_equal(structure.apply(tf.constant(KERNEL)), KERNEL)


@pytest.mark.parametrize(("sparse", "clustered"), [(True, False), (False, True), (True, True)])
def test_another_kernel_takes_it_on(sparse, clustered):
    other = np.random.default_rng(0).normal(size=KERNEL.shape).astype(np.float32)
    imposed = Structure.of(KERNEL, sparse=sparse, clustered=clustered).apply(tf.constant(other)).numpy()
    assert (imposed[KERNEL == 0] == 0).all() == sparse
    palettes = [np.unique(imposed[value == KERNEL]) for value in np.unique(KERNEL)]
    assert all(len(palette) == 1 for palette in palettes) == clustered


def test_gradients_of_tied_weights_add_up_on_one_of_them():
    upstream = np.arange(9, dtype=np.float32).reshape(3, 3)
    _, gradient = imposed_and_gradient(Structure.of(KERNEL, sparse=True, clustered=True), KERNEL, upstream)
    for value in np.unique(KERNEL[KERNEL != 0]):
        assert gradient[value == KERNEL].sum() == upstream[value == KERNEL].sum()
        assert np.count_nonzero(gradient[value == KERNEL]) == 1
    assert (gradient[KERNEL == 0] == 0).all()


def test_weights_that_must_be_zero_do_not_learn():
    _, gradient = imposed_and_gradient(Structure.of(KERNEL, sparse=True, clustered=False), KERNEL, np.ones((3, 3)))
    np.testing.assert_array_equal(gradient, KERNEL != 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_ties_may_end_at_the_channel(axis):
    upstream = np.random.default_rng(0).integers(1, 9, KERNEL.shape).astype(np.float32)
    structure = Structure.of(KERNEL, sparse=False, clustered=True, channel_axis=axis)
    _, gradient = imposed_and_gradient(structure, KERNEL, upstream)
    pairs = zip(np.moveaxis(KERNEL, axis, 0), np.moveaxis(gradient, axis, 0), strict=True)
    assert [np.count_nonzero(part) for _, part in pairs] == [
        len(np.unique(part)) for part in np.moveaxis(KERNEL, axis, 0)
    ]
    np.testing.assert_array_equal(gradient.sum(axis=1 - axis), upstream.sum(axis=1 - axis))


def test_gradients_are_the_same_in_every_run():
    random = np.random.default_rng(0)
    kernel = random.integers(0, 9, 2**19).astype(np.float32)
    upstream = tf.constant(random.normal(size=kernel.shape).astype(np.float32))
    structure = Structure.of(kernel, sparse=True, clustered=True)
    step = tf.function(lambda: imposed_gradient(structure, variable, upstream))
    variable = tf.Variable(kernel)
    first, *others = (step().numpy() for _ in range(8))
    for other in others:
        np.testing.assert_array_equal(other, first)


def imposed_gradient(structure, variable, upstream):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(structure.apply(variable) * upstream)
    return tf.convert_to_tensor(tape.gradient(loss, variable))
