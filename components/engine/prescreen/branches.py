"""The stages of a pipeline seen from its leaves: the ways to them, and which stages no leaf needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collabopt.components.engine.techniques import TECHNIQUES


@dataclass(frozen=True)
class Branch:
    """A stage of the tree.

    Attributes:
        parent: Name of the stage that it stands below, or of the baseline.
        technique: Name of its technique.
    """

    parent: str
    technique: str


def ways_to_leaves(stages: Mapping[str, Branch]) -> dict[str, list[tuple[str, str]]]:
    """Leaf -> the stages that lead to it from right below the baseline, itself included, as (stage, technique)."""
    return {name: _way(name, stages) for name, stage in stages.items() if TECHNIQUES[stage.technique].deploys}


def reasons_not_to_train(stages: Mapping[str, Branch], missed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Why each stage is not trained.

    A leaf is not where it cannot meet the policy, and a stage above leaves where none of these is.

    Args:
        stages: All stages that the pipeline may grow.
        missed: Leaf -> the goals that it cannot meet, each a sentence.

    Returns:
        Stage -> reason, of every stage; "" for those that are trained.
    """
    of_leaf = {leaf: "; ".join(missed.get(leaf, ())) for leaf in ways_to_leaves(stages)}
    return {name: of_leaf[name] if name in of_leaf else _of_interior(name, stages, of_leaf) for name in stages}


def _of_interior(name: str, stages: Mapping[str, Branch], of_leaf: Mapping[str, str]) -> str:
    ways = ways_to_leaves(stages)
    below = {leaf: reason for leaf, reason in of_leaf.items() if name in dict(ways[leaf])}
    if not below or not all(below.values()):
        return ""
    by_reason: dict[str, list[str]] = {}
    for leaf, reason in below.items():
        by_reason.setdefault(reason, []).append(leaf)
    each = "; ".join(f"{', '.join(leaves)}: {reason}" for reason, leaves in by_reason.items())
    return f"no leaf below it can meet the policy ({each})"


def _way(name: str, stages: Mapping[str, Branch]) -> list[tuple[str, str]]:
    stage = stages[name]
    above = _way(stage.parent, stages) if stage.parent in stages else []
    return [*above, (name, stage.technique)]
