"""Which pattern a layer gets its settings from."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_patterns import settings_by_layer

LAYERS = ["block1_conv", "block1_dense", "block10_conv", "conv", "conv[1]"]


def test_the_most_specific_pattern_wins_whatever_the_order():
    patterns = {"*": 0, "block1*": 1, "block1_*": 2, "block1_conv": 3}
    expected = {"block1_conv": 3, "block1_dense": 2, "block10_conv": 1, "conv": 0, "conv[1]": 0}
    assert settings_by_layer(patterns, LAYERS, "pruned") == expected
    assert settings_by_layer(dict(reversed(patterns.items())), LAYERS, "pruned") == expected


def test_a_layer_that_nothing_matches_gets_nothing():
    assert settings_by_layer({"block?_*": 1}, LAYERS, "pruned") == {"block1_conv": 1, "block1_dense": 1}
    assert settings_by_layer({}, LAYERS, "pruned") == {}


def test_a_name_that_looks_like_a_pattern_is_a_name_first():
    assert settings_by_layer({"conv[1]": 1, "conv*": 2}, LAYERS, "pruned") == {"conv": 2, "conv[1]": 1}


def test_characters_of_a_set_count_for_nothing():
    patterns = {"block1[_0]*conv": 1, "block1_*onv": 2}
    with pytest.raises(CollaboptError, match="'block1_conv', and neither is more specific"):
        settings_by_layer(patterns, LAYERS, "pruned")


@pytest.mark.parametrize("pattern", ["Conv", "dense", "block2_*"])
def test_a_pattern_that_matches_nothing_names_what_there_is(pattern):
    with pytest.raises(CollaboptError, match="no layer that can be clustered matches") as error:
        settings_by_layer({pattern: 1}, LAYERS, "clustered")
    assert repr(pattern) in str(error.value)
    assert "block1_conv, block1_dense, block10_conv, conv, conv[1]" in str(error.value)


def test_equally_specific_patterns_that_disagree_are_refused_and_those_that_agree_are_not():
    with pytest.raises(CollaboptError, match="'conv', and neither is more specific"):
        settings_by_layer({"*conv": 1, "conv*": 2}, ["conv"], "pruned")
    assert settings_by_layer({"*conv": 1, "conv*": 1}, ["conv"], "pruned") == {"conv": 1}
