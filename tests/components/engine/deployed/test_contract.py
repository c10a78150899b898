"""What a deployed file keeps of its ancestors' claims, on every architecture that TFMOT is known to lose them on.

One net holds all the traps as branches, because what one layer is must not matter to another: its layers are named
after their trap. TFMOT's own schemes are seen to lose what they lose, so that the check is known to find it.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.quantization import quantize_aware, trained_weights
from collabopt.components.engine.deployed.contract import check_contract
from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.deployed.layers import dequantized, find_kernels, kernels_as_deployed
from collabopt.components.engine.deployed.palette import restore_palettes
from collabopt.components.engine.deployed.weights import read_weights
from collabopt.components.engine.records import Claims
from tests.components.engine import compressed_kernels
from tests.components.engine.compressed_kernels import half_zero, of_few_values


def unpruned(layers, x):
    """The first convolution is neither pruned nor clustered; nor is the head of the net."""
    x = layers.Conv2D(4, 3, activation="relu", name="unpruned_untouched")(x)
    return layers.Conv2D(8, 3, activation="relu", name="unpruned")(x)


def separate_relu(layers, x):
    """A convolution, then a ReLU of its own, without BatchNormalization."""
    return layers.ReLU()(layers.Conv2D(8, 3, name="separate_relu")(x))


def concatenated(layers, x):
    """Two convolutions that feed a Concatenate."""
    branches = [layers.Conv2D(4, 3, name=f"concatenated_{side}")(x) for side in ("left", "right")]
    return layers.Concatenate()(branches)


def added(layers, x):
    """Two convolutions that feed an Add."""
    return layers.Add()([layers.Conv2D(8, 3, name=f"added_{side}")(x) for side in ("left", "right")])


def normalized(layers, x):
    """A convolution whose scales take up a BatchNormalization."""
    x = layers.Conv2D(8, 3, use_bias=False, name="normalized")(x)
    normalization = layers.BatchNormalization()
    x = normalization(x)
    normalization.gamma.assign(np.linspace(0.25, 4, 8))
    return layers.ReLU()(x)


def depthwise(layers, x):
    """A depthwise convolution, which no stage prunes or clusters, between two that are."""
    x = layers.Conv2D(8, 3, activation="relu", name="depthwise_before")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise_itself")(x)
    return layers.Conv2D(8, 1, activation="relu", name="depthwise_after")(x)


def empty_channel(layers, x):
    """One output channel has no weight left."""
    return layers.Conv2D(8, 3, activation="relu", name="empty_channel")(x)


def unclustered(layers, x):
    """A convolution that is pruned, but not clustered."""
    return layers.Conv2D(8, 3, activation="relu", name="unclustered")(x)


def shared(layers, x):
    """One convolution on two paths."""
    convolution = layers.Conv2D(8, 3, padding="same", activation="relu", name="shared")
    return layers.Add()([convolution(x), convolution(layers.MaxPooling2D(2, strides=1, padding="same")(x))])


def grouped(layers, x):
    """A convolution in groups."""
    x = layers.Conv2D(4, 3, activation="relu", name="grouped_before")(x)
    return layers.Conv2D(8, 3, groups=2, activation="relu", name="grouped")(x)


def equal_shapes(layers, x):
    """Three convolutions that only their weights tell apart."""
    for number in range(3):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"equal_shapes_{number}")(x)
    return x


TRAPS = [
    *(unpruned, separate_relu, concatenated, added, normalized, depthwise, empty_channel, unclustered, shared, grouped),
    equal_shapes,
]


def net(*traps):
    """The branches side by side, with most kernels compressed."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    branches = [layers.GlobalAveragePooling2D()(trap(layers, image)) for trap in traps]
    features = layers.Concatenate()(branches) if len(branches) > 1 else branches[0]
    features = layers.Dense(16, activation="relu", name="dense")(features)
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax", name="head_untouched")(features))
    for layer in model.layers:
        if layer.name in compressible_kernels(model) and not layer.name.endswith("_untouched"):
            compress(layer)
    return model


def compress(layer):
    """Makes half of a kernel zero, and gives the rest few values."""
    kernel = layer.kernel.numpy()
    values = half_zero(kernel if layer.name == "unclustered" else of_few_values(kernel), kernel)
    if layer.name == "empty_channel":
        values[..., 0] = 0
    layer.kernel.assign(values)


def claims_on(model, *what):
    """Claims on the layers that `net` has compressed."""
    untouched = [name for name in compressible_kernels(model) if name.endswith("_untouched")]
    claims = compressed_kernels.claims_on(model, *what, but=untouched)
    clusters = {name: count for name, count in claims.clusters.items() if name != "unclustered"}
    return claims.model_copy(update={"clusters": clusters})


def train(model, data, epochs=1):
    """Two steps an epoch that move weights by 0.015 each: several int8 values. Eager: so few pay for no graph."""
    import tf_keras

    optimizer = tf_keras.optimizers.Adam(0.015)
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(data.inputs("train"), data.labels("train"), batch_size=96, epochs=epochs, verbose=0)


# --- ours ---


@pytest.fixture(scope="module", params=[("sparse",), ("sparse", "clustered")], ids="+".join)
def ours(request, data):
    """The net with all traps after our training, its deployed file and what became of the claims."""
    model = net(*TRAPS)
    parent, claims = kernels_as_deployed(model), claims_on(model, *request.param)
    quantized = quantize_aware(model, "leaf", claims, lambda quantized, _: train(quantized, data))
    trained = kernels_as_deployed(trained_weights(quantized, model))
    tflite = restore_palettes(to_int8(quantized, None), {name: trained[name] for name in claims.clusters})
    contract = check_contract(tflite, claims, parent, trained)
    return SimpleNamespace(tflite=tflite, contract=contract, parent=parent, claimed=request.param, claims=claims)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_our_schemes_keep_what_is_claimed(ours, trap):
    assert any(layer.startswith(trap.__name__) for layer in ours.contract.layers)
    assert [each for each in ours.contract.broken if each.layer.startswith(trap.__name__)] == []


def test_every_claim_is_checked_and_holds(ours):
    assert ours.contract.layers == sorted(ours.claims.zero_positions.keys() | ours.claims.clusters.keys())
    assert ours.contract.holds


def test_ranges_come_from_training(ours):
    deployed = inspect_tflite(ours.tflite)
    assert (deployed.float_operators, deployed.float_weights) == ([], [])


def test_training_has_moved_the_weights(ours):
    """Otherwise nothing would have been at stake."""
    for deployed in find_kernels(read_weights(ours.tflite), ours.parent):
        moved = dequantized(deployed.tensor) - deployed.kernel * deployed.factors[:, np.newaxis]
        assert np.abs(moved).max() > 0.005, deployed.layer


def test_only_clustered_layers_give_up_their_scales_per_channel(ours):
    found = find_kernels(read_weights(ours.tflite), ours.parent)
    scales = {deployed.layer: set(deployed.tensor.scales) for deployed in found}
    assert len(scales["unclustered"]) > 4
    assert len(scales["unpruned_untouched"]) > 2
    assert (len(scales["separate_relu"]) == 1) == ("clustered" in ours.claimed)


# --- the stock schemes ---


def stock(scheme_name, model, data, **options):
    import tensorflow_model_optimization as tfmot

    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    scheme = getattr(tfmot.experimental.combine, scheme_name)(**options)
    quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    train(quantized, data, epochs=3)
    return to_int8(tfmot.experimental.combine.strip_clustering_cqat(quantized), None)


def broken_layers(contract):
    return {each.layer for each in contract.broken}


def test_stock_sparsity_preservation_is_by_passed_by_a_separate_relu_and_by_concatenate(data):
    model = net(separate_relu, concatenated, added, normalized)
    claims = claims_on(model, "sparse")
    tflite = stock("Default8BitPrunePreserveQuantizeScheme", model, data)
    contract = check_contract(tflite, claims, kernels_as_deployed(model))
    assert broken_layers(contract) == {"separate_relu", "concatenated_left", "concatenated_right"}
    assert all("zeros are lost" in each.what for each in contract.broken)


def test_in_the_stock_scheme_an_unpruned_layer_switches_the_others_off(data):
    model = net(unpruned)
    claims = claims_on(model, "sparse")
    tflite = stock("Default8BitClusterPreserveQuantizeScheme", model, data, preserve_sparsity=True)
    contract = check_contract(tflite, claims, kernels_as_deployed(model))
    assert broken_layers(contract) == {"unpruned", "dense"}


def test_the_stock_scheme_splits_a_palette_of_a_convolution_by_channel(data):
    model = net(empty_channel)
    claims = claims_on(model, "clustered")
    tflite = stock("Default8BitClusterPreserveQuantizeScheme", model, data, preserve_sparsity=False)
    parent = kernels_as_deployed(model)
    assert broken_layers(check_contract(tflite, claims, parent)) == {"empty_channel"}
    by_channel = claims.model_copy(update={"palette": "channel"})
    assert check_contract(tflite, by_channel, parent).holds


# --- the check itself ---


@pytest.fixture(scope="module")
def model():
    return net(separate_relu)


@pytest.fixture(scope="module")
def parent(model):
    return kernels_as_deployed(model)


@pytest.fixture(scope="module")
def claims(model):
    return claims_on(model, "sparse", "clustered")


@pytest.fixture(scope="module")
def split(model, data):
    """What the converter makes of it: a scale, and so a palette, for every output channel."""
    return to_int8(model, lambda: data.representative(8))


@pytest.fixture(scope="module")
def good(split, parent, claims):
    return restore_palettes(split, {name: parent[name] for name in claims.clusters})


def with_weight(tflite, layer, parent, change):
    """The file with the weights of a layer, `[output channels, weights of a channel]`, changed in place."""
    (tensor,) = (kernel.tensor for kernel in find_kernels(read_weights(tflite), parent) if kernel.layer == layer)
    stored = tensor.values.astype(np.int8).tobytes()
    assert tflite.count(stored) == 1
    channels = tensor.channels.astype(np.int8)
    change(channels)
    return tflite.replace(stored, channels.tobytes())


def test_a_good_file_holds(good, parent, claims):
    contract = check_contract(good, claims, parent)
    assert contract.layers == ["dense", "separate_relu"]
    assert contract.holds


def test_one_lost_zero_breaks_its_layer(good, parent, claims):
    zeros = parent["separate_relu"] == 0

    def lose_one(channels):
        row, column = np.argwhere(zeros)[3]
        channels[row, column] = channels.max()

    damaged = with_weight(good, "separate_relu", parent, lose_one)
    (broken,) = check_contract(damaged, claims, parent).broken
    assert (broken.layer, broken.what) == ("separate_relu", f"1 of {zeros.sum()} zeros are lost")


def test_a_zero_elsewhere_does_not_make_up_for_a_lost_one(good, parent, claims):
    def move_one(channels):
        at_zero, elsewhere = (tuple(np.argwhere(where)[0]) for where in (channels == 0, channels != 0))
        channels[at_zero], channels[elsewhere] = channels[elsewhere], 0

    damaged = with_weight(good, "dense", parent, move_one)
    assert broken_layers(check_contract(damaged, claims, parent)) == {"dense"}


def test_further_zeros_break_nothing(good, parent, claims):
    def clear_one(channels):
        channels[tuple(np.argwhere(channels != 0)[0])] = 0

    assert check_contract(with_weight(good, "dense", parent, clear_one), claims, parent).holds


def test_one_value_more_than_claimed_breaks_its_layer(good, parent, claims):
    def add_one(channels):
        channels[tuple(np.argwhere(channels == channels.max())[0])] -= 1

    damaged = with_weight(good, "dense", parent, add_one)
    (broken,) = check_contract(damaged, claims, parent).broken
    claimed = claims.clusters["dense"]
    assert broken.layer == "dense"
    assert broken.what == f"{claimed + 1} distinct values in the tensor, {claimed} are allowed"


def test_a_palette_per_channel_is_told_from_one_per_tensor(split, good, parent, claims):
    assert broken_layers(check_contract(split, claims, parent)) == {"dense", "separate_relu"}
    by_channel = claims.model_copy(update={"palette": "channel"})
    assert check_contract(split, by_channel, parent).holds
    assert check_contract(good, by_channel, parent).holds


def test_a_palette_per_channel_has_its_limit_too(good, parent, claims):
    claimed = max(len(np.unique(channel)) for channel in parent["dense"])
    tight = claims.model_copy(update={"palette": "channel", "clusters": {"dense": claimed - 1}})
    (broken,) = check_contract(good, tight, parent).broken
    assert broken.what == f"{claimed} distinct values on an output channel, {claimed - 1} are allowed"


def test_a_layer_that_the_file_does_not_hold_is_broken(good, parent, claims):
    elsewhere = np.random.default_rng(0).normal(size=(5, 7))
    more = claims.model_copy(update={"zero_positions": {**claims.zero_positions, "lost": "", "unheard_of": ""}})
    contract = check_contract(good, more, {**parent, "lost": elsewhere})
    assert [(each.layer, each.what) for each in contract.broken] == [
        ("lost", "its weights are not to be found in the file"),
        ("unheard_of", "its weights are not to be found in the file"),
    ]


def test_another_network_is_not_taken_for_this_one(good, parent, claims):
    other = {name: np.random.default_rng(1).normal(size=kernel.shape) for name, kernel in parent.items()}
    renamed = {f"other_{name}": kernel for name, kernel in other.items()}
    strange = Claims(clusters={f"other_{name}": count for name, count in claims.clusters.items()})
    assert broken_layers(check_contract(good, strange, renamed)) == {"other_dense", "other_separate_relu"}


def test_every_layer_of_a_float_file_is_broken(model, parent, claims):
    contract = check_contract(to_float32(model), claims, parent)
    assert [(each.layer, each.what) for each in contract.broken] == [
        (layer, "weights are float32") for layer in ("separate_relu", "dense", "head_untouched")
    ]


def test_without_claims_only_float_weights_are_looked_for(good, model, parent):
    assert check_contract(good, Claims(), parent).holds
    assert not check_contract(to_float32(model), Claims(), parent).holds
