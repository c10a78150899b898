"""Fine-tuning on two devices: virtual ones, which have to be set up before TensorFlow starts, so in a process apart."""

import json
import subprocess
import sys

import pytest

ON_TWO_DEVICES = """
import json, sys
import numpy as np
import collabopt.components.engine
import tensorflow as tf
import tf_keras
from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.pruning import prune
from collabopt.components.engine.compression.quantization import quantize_aware, trained_weights
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.contract import check_contract
from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.layers import kernels_as_deployed
from collabopt.components.engine.session import make_deterministic
from collabopt.components.engine.settings import ClusteringSettings, PruningSettings, TrainingSettings
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.distribution import fine_tuning_strategy
from collabopt.components.engine.training.fine_tune import fine_tune

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
make_deterministic(0)
data = StoredDataset(sys.argv[1])
layers = tf_keras.layers
inputs = layers.Input((8, 8, 1))
x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
x = layers.Flatten()(layers.ReLU()(layers.BatchNormalization()(x)))
model = tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))
stages = []

def fitting(settings):
    def fit(wrapped, callbacks):
        losses = []
        report = lambda epoch, metrics: losses.append(metrics["loss"])
        fine_tune(wrapped, data, TASK, settings, loss=TASK.loss(model), on_epoch=report, callbacks=callbacks)
        stages.append({"replicas": wrapped.distribute_strategy.num_replicas_in_sync, "losses": losses})
    return fit

def note(model, zeros):
    kernels = compressible_kernels(model)
    stages[-1]["sparsity"] = [float(np.mean(kernel == 0)) for kernel in kernels.values()]
    stages[-1]["zeros_kept"] = all(bool((kernels[name][zeros[name]] == 0).all()) for name in zeros)
    stages[-1]["values"] = [len(np.unique(kernel)) for kernel in kernels.values()]

pruning = PruningSettings(epochs=2, learning_rate=0.01)
clustering = ClusteringSettings(epochs=2, learning_rate=0.01, number_of_clusters=6)
quantizing = TrainingSettings(epochs=2, learning_rate=0.01)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    with fine_tuning_strategy().scope():
        model, claims = prune(model, pruning, data.spec.sizes["train"], fitting(pruning))
        zeros = {name: kernel == 0 for name, kernel in compressible_kernels(model).items()}
        note(model, zeros)
        model, claims = cluster(model, clustering, claims, fitting(clustering))
        note(model, zeros)
        parent = kernels_as_deployed(model)
        quantized = quantize_aware(model, "leaf", claims, fitting(quantizing))
        note(trained_weights(quantized, model), zeros)
contract = check_contract(to_int8(quantized, None), claims, parent)
print(json.dumps({"stages": stages, "contract": contract.model_dump()}))
"""


def test_zeros_and_palettes_hold_on_two_devices(data):
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(data.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["contract"] == {"layers": ["conv", "dense"], "broken": []}
    pruned, clustered, quantized = outcome["stages"]
    for stage in (pruned, clustered, quantized):
        assert stage["replicas"] == 2
        assert stage["sparsity"] == pytest.approx([0.5, 0.5], abs=0.01)
        assert stage["zeros_kept"]
        assert stage["losses"][1] < stage["losses"][0]
    assert clustered["values"] == quantized["values"] == [6, 6]
    assert min(pruned["values"]) > 6


def test_one_device_is_no_reason_to_distribute():
    import tensorflow as tf

    from collabopt.components.engine.training.distribution import fine_tuning_strategy

    assert fine_tuning_strategy() is tf.distribute.get_strategy()
    assert not tf.distribute.has_strategy()
