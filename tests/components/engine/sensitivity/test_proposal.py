"""What plan follows from what each layer bears alone."""

import pytest

from collabopt.components.engine.sensitivity.proposal import propose
from collabopt.components.engine.sensitivity.records import LayerSensitivity, Trial


def layer(name, weights, pruned, clustered=(), total=1000):
    def trials(drops):
        return [Trial(value=v, metric=None if d is None else 1 - d, drop=d) for v, d in drops]

    return LayerSensitivity(
        layer=name, weights=weights, share=weights / total, pruned=trials(pruned), clustered=trials(clustered)
    )


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        pytest.param([0.0, 0.01, 0.02], 0.5, id="the strongest within tolerance, which is included"),
        pytest.param([-0.01, 0.0, 0.0], 0.9, id="all of them"),
        pytest.param([0.0, 0.02, 0.0], 0.3, id="nothing beyond one that costs too much, as that was luck"),
        pytest.param([0.0, None, 0.0], 0.3, id="a metric that is not finite costs too much"),
        pytest.param([0.02, 0.0, 0.0], 0.3, id="the gentlest, as the layer is large"),
    ],
)
def test_a_large_layer_gets_the_strongest_value_that_it_bears(drops, expected):
    plan = propose([layer("large", 900, list(zip([0.3, 0.5, 0.9], drops, strict=True)))], 0.01)
    assert plan.model_dump() == {"prune": {"large": {"target_sparsity": expected}}, "cluster": {}}


def test_clusters_go_from_many_to_few():
    plan = propose([layer("large", 900, [], [(32, 0.0), (16, 0.0), (8, 0.0), (4, 0.5)])], 0.01)
    assert plan.model_dump()["cluster"] == {"large": {"number_of_clusters": 8}}


def test_a_small_layer_that_bears_nothing_is_excluded_and_one_that_bears_something_is_not():
    bears_nothing, bears_some = [(0.3, 0.1), (0.5, 0.2)], [(0.3, 0.0), (0.5, 0.2)]
    layers = [
        layer("large", 900, bears_nothing, [(32, 0.1)]),
        layer("small", 49, bears_nothing, [(32, 0.1)]),
        layer("small_too", 49, bears_some),
        layer("not_small", 50, bears_nothing),
    ]
    plan = propose(layers, 0.01).model_dump()
    assert plan["prune"]["small"] == plan["cluster"]["small"] == "exclude"
    assert plan["prune"]["small_too"] == plan["prune"]["not_small"] == {"target_sparsity": 0.3}
    assert plan["cluster"]["large"] == {"number_of_clusters": 32}


def test_the_largest_layer_is_never_excluded():
    layers = [layer(f"layer{number}", 10 + (number == 3), [(0.3, 0.5)]) for number in range(40)]
    plan = propose(layers, 0.01).model_dump()["prune"]
    assert [name for name, own in plan.items() if own != "exclude"] == ["layer3"]
