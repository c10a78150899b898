"""Eight real leaves of one small network, and decisions about them."""

import math
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.gate.decision import Decision, decide
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.records import (
    BrokenLayer,
    Contract,
    Footprint,
    HostLatency,
    Interval,
    LeafReport,
    MetricOfRecord,
    NpuEstimate,
    Proof,
    StageRecord,
    Step,
)

# Leaf -> (sparse, clustered, techniques with the stages on the way, accuracy).
WAYS = {
    "ptq": (False, False, [("ptq", "post_training_quantize")], 0.981),
    "qat": (False, False, [("qat", "quantize_aware_train")], 0.982),
    "pruned_ptq": (True, False, [("pruned", "prune"), ("pruned_ptq", "post_training_quantize")], 0.975),
    "pqat": (True, False, [("pruned", "prune"), ("pqat", "sparsity_preserving_qat")], 0.979),
    "pruned_clustered_ptq": (
        True,
        True,
        [
            ("pruned", "prune"),
            ("pruned_clustered", "sparsity_preserving_cluster"),
            ("pruned_clustered_ptq", "post_training_quantize"),
        ],
        0.970,
    ),
    "pcqat": (
        True,
        True,
        [
            ("pruned", "prune"),
            ("pruned_clustered", "sparsity_preserving_cluster"),
            ("pcqat", "sparsity_cluster_preserving_qat"),
        ],
        0.977,
    ),
    "clustered_ptq": (False, True, [("clustered", "cluster"), ("clustered_ptq", "post_training_quantize")], 0.966),
    "cqat": (False, True, [("clustered", "cluster"), ("cqat", "cluster_preserving_qat")], 0.974),
}
CLAIMED = ["conv", "pointwise", "classes"]
BASELINE = 0.983

# A process of its own: TensorFlow must not be in the one that renders.
_MAKE_MODELS = """
import sys
import numpy as np, tensorflow as tf
directory, ways = sys.argv[1], [way.split(":") for way in sys.argv[2:]]
x = np.random.default_rng(0).random((32, 8, 8, 1), dtype=np.float32)
for seed, (name, sparse, clustered) in enumerate(ways):
    tf.keras.utils.set_random_seed(seed // 2)
    model = tf.keras.Sequential([
        tf.keras.Input((8, 8, 1)),
        tf.keras.layers.Conv2D(12, 3, activation="relu", name="conv"),
        tf.keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        tf.keras.layers.Conv2D(24, 1, activation="relu", name="pointwise"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(10, activation="softmax", name="classes"),
    ])
    for layer in (model.get_layer(name) for name in ("conv", "pointwise", "classes")):
        kernel, bias = layer.get_weights()
        if sparse == "1":
            kernel[np.abs(kernel) < np.median(np.abs(kernel))] = 0
        if clustered == "1":
            step = np.abs(kernel).max() / 7.5
            kernel = np.where(kernel == 0, 0, (np.floor(kernel / step) + 0.5) * step)
        layer.set_weights([kernel, bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    open(f"{directory}/{name}.tflite", "wb").write(converter.convert())
"""


@dataclass(frozen=True)
class Case:
    """What a report is rendered from."""

    decision: Decision
    baseline: StageRecord
    leaves: dict[str, LeafReport]
    tflites: dict[str, bytes]

    @property
    def arguments(self):
        return self.decision, self.baseline, self.leaves, self.tflites


@pytest.fixture(scope="session")
def tflites(tmp_path_factory):
    """Leaf -> the bytes of its `.tflite`."""
    directory = tmp_path_factory.mktemp("leaves")
    ways = [f"{name}:{int(sparse)}:{int(clustered)}" for name, (sparse, clustered, *_) in WAYS.items()]
    subprocess.run([sys.executable, "-c", _MAKE_MODELS, str(directory), *ways], check=True, capture_output=True)
    return {name: (directory / f"{name}.tflite").read_bytes() for name in WAYS}


@pytest.fixture(scope="session")
def deployed(tflites):
    """Leaf -> inspection of its file."""
    return {name: inspect_tflite(content) for name, content in tflites.items()}


@pytest.fixture(scope="session")
def make_case(tflites, deployed):
    """Builds leaves and a decision about them."""

    def make(
        policy="", *, leaves=None, measured=True, broken=(), rename=None, metric="accuracy", champion=None, deltas=None
    ):
        rename = rename or {}
        baseline = _baseline(metric)
        reports, files = {}, {}
        for name in leaves or WAYS:
            report = _report(name, baseline, deployed[name], measured=measured, broken=name in broken)
            shown = rename.get(name, name)
            lineage = [
                *report.lineage[:-1],
                report.lineage[-1].model_copy(update={"stage": shown}),
            ]
            reports[shown] = report.model_copy(update={"lineage": lineage})
            files[shown] = tflites[name]
        decision = decide(baseline, reports, parse_policy(policy), champion, delta_bytes=deltas)
        return Case(decision, baseline, reports, files)

    return make


def _baseline(metric):
    return StageRecord(
        lineage=[Step(stage="baseline", technique="import_model", settings={"source": "example://digits"})],
        task="package.module:TASK",
        dataset_digest="d1" * 32,
        metric=MetricOfRecord(name=metric, higher_is_better=True, baseline=BASELINE),
        metrics={metric: BASELINE},
        mlflow={"run_id": "a1" * 16, "experiment_id": "7"},
        versions={"python": "3.11.9", "tensorflow": "2.21.0"},
    )


def _report(name, baseline, deployed, *, measured, broken):
    _, _, way, value = WAYS[name]
    steps = [
        Step(stage=stage, technique=technique, settings={"seed": 3, "learning_rate": 1e-4}, metric_value=value)
        for stage, technique in way
    ]
    claimed = CLAIMED if len(way) > 1 else []
    position = list(WAYS).index(name)
    return LeafReport(
        lineage=[*baseline.lineage, *steps],
        task=baseline.task,
        dataset_digest=baseline.dataset_digest,
        metric=baseline.metric,
        metrics={baseline.metric.name: value, "packed_bytes": float(deployed.packed_bytes)},
        mlflow={"run_id": f"{position:032x}", "experiment_id": "7"},
        versions={"python": "3.11.9", "tensorflow": "2.21.0", "numpy": "2.4.6" if position else "2.4.5"},
        deployed=deployed,
        contract=Contract(
            layers=claimed,
            broken=[BrokenLayer(layer="conv", what="12 of 54 zeros are lost")] if broken else [],
        ),
        interval=_interval(value) if measured else None,
        footprint=_footprint(position) if measured else None,
        proof=Proof(samples=64, metrics={baseline.metric.name: value}) if measured else None,
    )


def _interval(value, samples=360):
    half = 1.96 * math.sqrt(value * (1 - value) / samples)
    return Interval(samples=samples, low=value - half, high=min(value + half, 1.0), method="Wilson score")


def _footprint(position):
    npu = NpuEstimate(
        accelerator="ethos-u55-128",
        system_config="Ethos_U55_High_End_Embedded",
        memory_mode="Shared_Sram",
        tool="ethos-u-vela 5.2.0",
        supported=True,
        latency_ms=0.02 + 0.004 * position,
        sram_bytes=8864,
        flash_bytes=10016 + position,
        weight_bytes=4864,
        macs=277972,
        npu_operators=36,
        cpu_operators=1,
    )
    times = {"invokes": 1000, "tool": "ai-edge-litert 2.3.0", "cpu": "A Processor 3000"}
    hosts = [
        HostLatency(kernels="xnnpack", median_ms=0.0201, p90_ms=0.0213, **times),
        HostLatency(kernels="builtin", supported=False, **times),
    ]
    return Footprint(npu=npu, host=hosts, activation_bytes=9216)


class Page(HTMLParser):
    """A page, taken apart; refuses tags that do not match."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "input", "hr"})

    def __init__(self, html):
        """Parses all of it."""
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words, self.ids = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self._note(tag, attributes)
        if tag in ("small", "br"):
            self.words.append(" ")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self._note(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()
        if tag not in ("strong", "code", "small", "span"):
            self.words.append(" ")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def _note(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        self.ids += [value for name, value in attributes if name == "id"]


@pytest.fixture
def parse():
    return Page
