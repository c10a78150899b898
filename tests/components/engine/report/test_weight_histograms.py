import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from collabopt.components.engine.deployed.weights import StoredWeights, read_weights
from collabopt.components.engine.report.compressible import compressible
from collabopt.components.engine.report.weight_histograms import describe, histogram_of, weight_histogram


def tensor(values, dtype="int8", op="CONV_2D", zero_point=0):
    values = np.asarray(values, np.uint8 if dtype == "uint8" else np.float32 if dtype == "float32" else np.int8)
    return StoredWeights(
        0, "t", op, dtype, values.reshape(1, -1), 0, np.ones(1, np.float32), None, zero_point, values.size, False
    )  # fmt: skip


@pytest.mark.parametrize("leaf", ["ptq", "pcqat", "clustered_ptq"])
def test_shares_are_those_of_the_file(make_case, tflites, leaf):
    deployed = make_case().leaves[leaf].deployed
    counted = compressible(deployed.weights)
    histogram = histogram_of(compressible(read_weights(tflites[leaf])))
    sizes = [np.prod(each.shape) for each in counted]
    assert histogram.total == sum(sizes)
    zeros = sum(each.zero_fraction * size for each, size in zip(counted, sizes, strict=True))
    assert histogram.zeros == pytest.approx(zeros / sum(sizes))
    assert histogram.most_distinct == max(each.distinct_values for each in counted)
    assert len(counted) == len(deployed.weights) - 1  # all but the depthwise one


def test_zero_points_are_subtracted_and_floats_left_out():
    histogram = histogram_of([tensor([3, 3, 5], "uint8", zero_point=3), tensor([0.5, 0.0], "float32")])
    assert (histogram.values, histogram.counts, histogram.left_out) == ((0, 2), (2, 1), 1)
    assert histogram.zeros == pytest.approx(2 / 3)
    assert describe(histogram) == "3 weights, 66.7 % zeros, 2 distinct values"


def test_several_tensors_say_how_many_values_one_has():
    assert describe(histogram_of([tensor([1, 2]), tensor([3, 4, 5])])).endswith(
        "5 distinct values, at most 3 in a tensor"
    )


def test_bars_are_as_tall_as_their_counts():
    picture = ElementTree.fromstring(weight_histogram(histogram_of([tensor([0, 1, 1, 2, 2, 2, 2])]), "x", "i"))
    path = next(path.get("d") for path in picture.iter("path") if path.get("class") == "bars")
    heights = [float(low) - float(high) for low, high in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", path)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.05)
    zero = next(bar for bar in picture.iter("rect") if bar.get("class") == "zero")
    assert float(zero.get("height")) == pytest.approx(heights[0] / 2, abs=0.05)


def test_a_zero_bar_that_towers_is_cut_and_says_so():
    drawn = weight_histogram(histogram_of([tensor([0] * 90 + [1] * 6 + [2] * 4)]), "x", "i")
    assert "90.0 % zeros (bar cut)" in drawn and 'class="cut"' in drawn
    drawn = weight_histogram(histogram_of([tensor([0] * 7 + [1] * 6)]), "x", "i")
    assert "53.8 % zeros<" in drawn and 'class="cut"' not in drawn


def test_no_zeros_and_no_weights():
    assert "no zeros" in weight_histogram(histogram_of([tensor([1, 2])]), "x", "i")
    empty = histogram_of([])
    assert describe(empty) == "no integer weights"
    ElementTree.fromstring(weight_histogram(empty, "x", "i"))


def test_all_zeros():
    drawn = weight_histogram(histogram_of([tensor([0, 0, 0])]), "x", "i")
    assert "100.0 % zeros<" in drawn
