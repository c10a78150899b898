"""Which leaf is shipped, and why not the others. No input, no output: figures in, verdicts out."""

import math
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

from collabopt.components.engine.gate.policy import Policy
from collabopt.components.engine.records import LeafReport, StageRecord

# 0.91 - 0.89 is 0.020000000000000018: a drop of exactly the limit must pass. No metric is measured this finely.
DROP_TOLERANCE = 1e-9
# Broken layers that a verdict names; the report lists them all.
_LAYERS_NAMED = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Frozen):
    """What the gate thinks of one leaf.

    Attributes:
        leaf: Name of the leaf.
        qualified: Whether it may be shipped.
        reason: One sentence with the figures that decided.
        pathway: `standard` or `collaborative`.
        techniques: Techniques from the baseline to the leaf.
        metric: Value of the deciding metric on the test split; None where it is missing or not finite.
        drop: How much worse than the baseline that is, negative when better; None as for `metric`.
        tflite_bytes: Size of the file.
        gzip_bytes: Size after gzip -9.
        zip_bytes: Size after ZIP deflate.
        sha256: Digest of the file.
    """

    leaf: str
    qualified: bool
    reason: str
    pathway: str
    techniques: tuple[str, ...]
    metric: float | None
    drop: float | None
    tflite_bytes: int
    gzip_bytes: int
    zip_bytes: int
    sha256: str


class Baseline(_Frozen):
    """What the leaves are compared with.

    Attributes:
        stage: Name of the baseline stage.
        metric: Name of the deciding metric.
        higher_is_better: Its direction.
        value: Its value for the fp32 baseline on the test split; None where it is not finite.
        dataset_digest: SHA-256 of the dataset's content.
    """

    stage: str
    metric: str
    higher_is_better: bool
    value: float | None
    dataset_digest: str


class Decision(_Frozen):
    """Outcome of the gate; `decision.json`.

    Attributes:
        schema_version: Version of this layout.
        policy: The policy that was applied.
        baseline: What the leaves were compared with.
        winner: Name of the leaf to ship; None when none qualifies.
        winner_sha256: Digest of its file; None without a winner.
        outcome: One sentence that says what was decided and why.
        verdicts: One per leaf, by name.
    """

    schema_version: int = 1
    policy: Policy
    baseline: Baseline
    winner: str | None
    winner_sha256: str | None
    outcome: str
    verdicts: tuple[Verdict, ...]


def decide(baseline: StageRecord, leaves: Mapping[str, LeafReport], policy: Policy) -> Decision:
    """Judges every leaf and picks the one to ship.

    Of the leaves within the policy's limits the smallest wins; of equally small ones that with the smaller drop, then
    the first by name. The order of `leaves` does not matter.

    Args:
        baseline: Record of the fp32 baseline.
        leaves: Name of a leaf -> its report.
        policy: Limits, and what to minimize.
    """
    verdicts = tuple(_judge(name, leaves[name], baseline, policy) for name in sorted(leaves))
    qualified = [verdict for verdict in verdicts if verdict.qualified]
    winner = min(qualified, key=lambda verdict: _rank(verdict, policy), default=None)
    return Decision(
        policy=policy,
        baseline=Baseline(
            stage=baseline.stage,
            metric=baseline.metric.name,
            higher_is_better=baseline.metric.higher_is_better,
            value=_finite(baseline.metric.baseline),
            dataset_digest=baseline.dataset_digest,
        ),
        winner=winner.leaf if winner else None,
        winner_sha256=winner.sha256 if winner else None,
        outcome=_outcome(winner, qualified, verdicts, policy),
        verdicts=verdicts,
    )


def assess(leaves: Mapping[str, LeafReport], baseline: StageRecord, policy: Policy) -> bool:
    """Whether any leaf qualifies, for pipelines that grow further branches only if none does."""
    return decide(baseline, leaves, policy).winner is not None


def _judge(name: str, report: LeafReport, baseline: StageRecord, policy: Policy) -> Verdict:
    value = _finite(report.metrics.get(baseline.metric.name))
    drop = None if value is None else _finite(baseline.metric.drop(value))
    refusals = [refusal for check in CHECKS if (refusal := check(report, baseline, policy))]
    return Verdict(
        leaf=name,
        qualified=not refusals,
        reason="; ".join(refusals) if refusals else f"within every limit: {_drop_in_words(drop)}, {_sizes(report)}",
        pathway=report.pathway,
        techniques=tuple(step.technique for step in report.lineage),
        metric=value,
        drop=drop,
        tflite_bytes=report.deployed.tflite_bytes,
        gzip_bytes=report.deployed.gzip_bytes,
        zip_bytes=report.deployed.zip_bytes,
        sha256=report.deployed.sha256,
    )


def _refuse_incomparable(report: LeafReport, baseline: StageRecord, policy: Policy) -> str | None:
    if report.dataset_digest != baseline.dataset_digest:
        return "it was measured on another dataset than the baseline"
    if (report.metric.name, report.metric.higher_is_better) != (baseline.metric.name, baseline.metric.higher_is_better):
        return f"it decides on metric '{report.metric.name}', the baseline on '{baseline.metric.name}'"
    if report.lineage[0] != baseline.lineage[0] or report.metric.baseline != baseline.metric.baseline:
        return "it was made from another baseline"
    if report.task != baseline.task:
        return f"its task is '{report.task}', that of the baseline '{baseline.task}'"
    return None


def _refuse_broken(report: LeafReport, baseline: StageRecord, policy: Policy) -> str | None:
    broken = report.contract.broken
    if not broken:
        return None
    named = "; ".join(f"'{each.layer}': {each.what}" for each in broken[:_LAYERS_NAMED])
    more = f"; and {len(broken) - _LAYERS_NAMED} more" if len(broken) > _LAYERS_NAMED else ""
    return f"broken: the file does not keep what its ancestors won ({named}{more})"


def _refuse_drop(report: LeafReport, baseline: StageRecord, policy: Policy) -> str | None:
    name = baseline.metric.name
    if name not in report.metrics:
        return f"it reports no '{name}'"
    value = report.metrics[name]
    if not math.isfinite(value) or not math.isfinite(baseline.metric.baseline):
        return f"'{name}' is {value} and {baseline.metric.baseline} in the baseline, which cannot be compared"
    drop = baseline.metric.drop(value)
    if drop <= policy.max_drop + DROP_TOLERANCE:
        return None
    return f"'{name}' is {value:.4f}, {drop:.4f} worse than the baseline; accepted are {policy.max_drop:g}"


def _refuse_tflite_bytes(report: LeafReport, baseline: StageRecord, policy: Policy) -> str | None:
    return _refuse_size(".tflite file", report.deployed.tflite_bytes, policy.max_tflite_bytes)


def _refuse_gzip_bytes(report: LeafReport, baseline: StageRecord, policy: Policy) -> str | None:
    return _refuse_size("gzipped file", report.deployed.gzip_bytes, policy.max_gzip_bytes)


def _refuse_size(what: str, size_bytes: int, limit_bytes: int | None) -> str | None:
    if limit_bytes is None or size_bytes <= limit_bytes:
        return None
    return f"the {what} has {size_bytes:,} bytes; accepted are {limit_bytes:,}"


# (report, baseline, policy) -> why the leaf may not be shipped, None if it may. A leaf must pass all of them.
CHECKS: tuple[Callable[[LeafReport, StageRecord, Policy], str | None], ...] = (
    _refuse_incomparable,
    _refuse_broken,
    _refuse_drop,
    _refuse_tflite_bytes,
    _refuse_gzip_bytes,
)


def _rank(verdict: Verdict, policy: Policy) -> tuple[int, float, str]:
    drop = math.inf if verdict.drop is None else verdict.drop
    return getattr(verdict, policy.minimize), drop, verdict.leaf


def _outcome(winner: Verdict | None, qualified: list[Verdict], verdicts: tuple[Verdict, ...], policy: Policy) -> str:
    if winner is None:
        return f"none of {len(verdicts)} leaves qualifies; nothing is shipped"
    return (
        f"'{winner.leaf}' is shipped: of {len(qualified)} qualified leaves ({len(verdicts)} in all) it has the least "
        f"{policy.minimize} ({getattr(winner, policy.minimize):,}), {_drop_in_words(winner.drop)}"
    )


def _drop_in_words(drop: float | None) -> str:
    if drop is None:
        return "drop unknown"
    return (
        f"{abs(drop):.4f} {'worse' if drop > 0 else 'better'} than the baseline" if drop else "as good as the baseline"
    )


def _sizes(report: LeafReport) -> str:
    return f"{report.deployed.tflite_bytes:,} bytes, {report.deployed.gzip_bytes:,} gzipped"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
