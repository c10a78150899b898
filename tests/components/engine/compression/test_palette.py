import numpy as np
import pytest

from collabopt.components.engine.compression.palette import quantize_to_palette

INITIALIZATIONS = ["kmeans++", "linear", "density", "random"]
# Mean squared error of the best 16 levels for a standard normal distribution (Max 1960, table I).
BEST_ERROR_OF_16_LEVELS = 0.00954


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).normal(size=100_000).astype(np.float32)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_palettes_come_close_to_the_best(weights, initialization):
    replaced = quantize_to_palette(weights, 16, initialization, seed=0)
    assert replaced.dtype == weights.dtype
    assert len(np.unique(replaced)) == 16
    assert np.mean((replaced - weights) ** 2) < 1.1 * BEST_ERROR_OF_16_LEVELS


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_every_weight_takes_the_nearest_value_and_every_value_is_a_mean(weights, initialization):
    few = weights[:2000]
    replaced = quantize_to_palette(few, 5, initialization, seed=0)
    palette = np.unique(replaced)
    nearest = palette[np.abs(few[:, None] - palette).argmin(axis=1)]
    np.testing.assert_array_equal(replaced, nearest)
    np.testing.assert_allclose(palette, [few[replaced == value].mean() for value in palette], rtol=1e-4)


@pytest.mark.parametrize("initialization", ["kmeans++", "random"])
def test_the_seed_decides(weights, initialization):
    few = weights[:300]
    first, again, other = (quantize_to_palette(few, 16, initialization, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize("values", [[], [0.0], [0.1, 0.2, 0.3]])
def test_weights_of_no_more_values_than_clusters_stay(values, initialization):
    weights = np.array(values * 7, np.float32)
    np.testing.assert_array_equal(quantize_to_palette(weights, 3, initialization, seed=0), weights)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_one_value_among_many_equal_ones_is_no_trouble(initialization):
    weights = np.concatenate([np.zeros(50_000), np.linspace(1, 2, 20)]).astype(np.float32)
    assert 2 <= len(np.unique(quantize_to_palette(weights, 8, initialization, seed=0))) <= 8
