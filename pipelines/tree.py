"""The collaborative-optimization tree, declared once; every pipeline is grown from it.

Source of the tree: the collaborative-optimization guide of TensorFlow Model Optimization
(https://www.tensorflow.org/model_optimization/guide/combine/collaborative_optimization), with direct post-training
quantization and quantization-aware training of the baseline added.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from collabopt.components.engine.techniques import TECHNIQUES, Technique, pathway_of

ROOT = "baseline"


class IllegalTreeError(ValueError):
    """A declared tree would lose what a stage's parent won, or is not a tree."""


@dataclass(frozen=True)
class Stage:
    """One stage of the tree: a technique applied to the model of its parent.

    Attributes:
        name: Unique name; also the name of its MLflow run and its output directory.
        parent: Name of the parent stage, or `baseline`.
        technique: What it does; its requirements and effects are declared in `engine/techniques.py`.
    """

    name: str
    parent: str
    technique: Technique

    @property
    def requires(self) -> frozenset[str]:
        """Properties that the parent must have."""
        return self.technique.requires

    @property
    def preserves(self) -> frozenset[str]:
        """Properties of the parent that survive this stage."""
        return self.technique.preserves

    @property
    def adds(self) -> frozenset[str]:
        """Properties that this stage brings about."""
        return self.technique.adds

    @property
    def trains(self) -> bool:
        """Whether weights are fine-tuned."""
        return self.technique.trains

    @property
    def leaf(self) -> bool:
        """Whether the outcome is a deployable `.tflite`."""
        return self.technique.deploys


@dataclass(frozen=True)
class Tree:
    """A legal tree of stages below the baseline.

    Attributes:
        stages: Parents before children; the baseline itself is not among them.
    """

    stages: tuple[Stage, ...]

    def __iter__(self) -> Iterator[Stage]:
        """Stages, parents before children."""
        return iter(self.stages)

    def __getitem__(self, name: str) -> Stage:
        """The stage of that name; `KeyError` with the legal names when there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"no stage '{name}' in the tree; stages: {', '.join(s.name for s in self.stages)}")

    def children(self, name: str) -> tuple[Stage, ...]:
        """Stages right below a stage or the baseline."""
        return tuple(stage for stage in self.stages if stage.parent == name)

    def leaves(self) -> tuple[Stage, ...]:
        """Stages whose outcome can be deployed."""
        return tuple(stage for stage in self.stages if stage.leaf)

    def path(self, name: str) -> tuple[Stage, ...]:
        """Stages from right below the baseline down to the named one, which is included."""
        steps = [self[name]]
        while steps[-1].parent != ROOT:
            steps.append(self[steps[-1].parent])
        return tuple(reversed(steps))

    def pathway(self, name: str) -> str:
        """`collaborative` when any stage on the path preserves an earlier one, else `standard`."""
        return pathway_of(stage.technique.name for stage in self.path(name))

    def below(self, name: str) -> "Tree":
        """The branch that begins right below the baseline with the named stage."""
        return self.restricted_to(leaf.name for leaf in self.leaves() if self.path(leaf.name)[0].name == name)

    def standard(self) -> "Tree":
        """The tree without its collaborative leaves."""
        return self.restricted_to(leaf.name for leaf in self.leaves() if self.pathway(leaf.name) == "standard")

    def restricted_to(self, leaves: Iterable[str]) -> "Tree":
        """The smallest tree with these leaves, in the same order."""
        wanted = {stage.name for leaf in leaves for stage in self.path(leaf)}
        return Tree(tuple(stage for stage in self.stages if stage.name in wanted))


def declare_tree(declaration: Iterable[tuple[str, str, str]]) -> Tree:
    """Builds a tree and refuses an illegal one.

    Args:
        declaration: (name, parent, technique name) of every stage, in any order.

    Returns:
        The tree, parents before children, otherwise in the order of declaration.

    Raises:
        IllegalTreeError: A duplicate name, an unknown parent or technique, a cycle, a leaf with children, an interior
            stage without children, a missing requirement, or a stage that destroys what its parent won. The message
            names stage, property and remedy.
    """
    ordered = _parents_first(_unique_stages(declaration))
    _check_leaves(ordered)
    _check_properties(ordered)
    return Tree(tuple(ordered))


def _unique_stages(declaration: Iterable[tuple[str, str, str]]) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for name, parent, technique in declaration:
        if name in stages or name == ROOT:
            raise IllegalTreeError(f"stage '{name}' is declared twice; give every stage a name of its own")
        if technique not in TECHNIQUES:
            raise IllegalTreeError(
                f"stage '{name}': unknown technique '{technique}'; techniques: {', '.join(TECHNIQUES)}"
            )
        stages[name] = Stage(name, parent, TECHNIQUES[technique])
    return stages


def _parents_first(stages: dict[str, Stage]) -> list[Stage]:
    for stage in stages.values():
        if stage.parent != ROOT and stage.parent not in stages:
            raise IllegalTreeError(
                f"stage '{stage.name}': unknown parent '{stage.parent}'; "
                f"declare it, or use one of: {', '.join([ROOT, *stages])}"
            )
    placed: dict[str, Stage] = {}
    while len(placed) < len(stages):
        ready = [s for s in stages.values() if s.name not in placed and (s.parent == ROOT or s.parent in placed)]
        if not ready:
            stuck = ", ".join(name for name in stages if name not in placed)
            raise IllegalTreeError(f"stages form a cycle: {stuck}; let one of them start from '{ROOT}'")
        placed.update((stage.name, stage) for stage in ready)
    return list(_depth_first(placed))


def _depth_first(stages: dict[str, Stage], parent: str = ROOT) -> Iterator[Stage]:
    for stage in stages.values():
        if stage.parent == parent:
            yield stage
            yield from _depth_first(stages, stage.name)


def _check_leaves(stages: list[Stage]) -> None:
    parents = {stage.parent: stage for stage in reversed(stages)}
    for stage in stages:
        child = parents.get(stage.name)
        if stage.leaf and child:
            raise IllegalTreeError(
                f"stage '{child.name}' is below '{stage.name}', but '{stage.name}' is a leaf "
                f"({stage.technique.name} ends in a .tflite); attach it to '{stage.parent}' instead"
            )
        if not stage.leaf and not child:
            raise IllegalTreeError(
                f"stage '{stage.name}' has no children, so nothing of it could be deployed; "
                f"add a quantizing stage below it"
            )


def _check_properties(stages: list[Stage]) -> None:
    properties: dict[str, frozenset[str]] = {ROOT: frozenset()}
    for stage in stages:
        before = properties[stage.parent]
        missing = stage.requires - before
        if missing:
            raise IllegalTreeError(
                f"stage '{stage.name}': {stage.technique.name} requires {_words(missing)}, but its parent "
                f"'{stage.parent}' is not; {_remedy(stage, before)}"
            )
        lost = before - stage.preserves - stage.adds
        if lost:
            raise IllegalTreeError(
                f"stage '{stage.name}': {stage.technique.name} would destroy what makes its parent '{stage.parent}' "
                f"{_words(lost)}; {_remedy(stage, before)}"
            )
        properties[stage.name] = stage.technique.properties_after(before)


def _remedy(stage: Stage, before: frozenset[str]) -> str:
    """Names the techniques with the same effect that are legal below the parent."""
    legal = [
        technique.name
        for technique in TECHNIQUES.values()
        if technique.adds == stage.adds
        and technique.trains == stage.trains
        and technique.requires <= before
        and before <= technique.preserves | technique.adds
    ]
    return f"use {' or '.join(legal)} there" if legal else f"move the stage below '{ROOT}'"


def _words(properties: frozenset[str]) -> str:
    return " and ".join(sorted(properties))


TREE = declare_tree(
    [
        ("ptq", ROOT, "post_training_quantize"),
        ("qat", ROOT, "quantize_aware_train"),
        ("pruned", ROOT, "prune"),
        ("pruned_ptq", "pruned", "post_training_quantize"),
        ("pqat", "pruned", "sparsity_preserving_qat"),
        ("pruned_clustered", "pruned", "sparsity_preserving_cluster"),
        ("pruned_clustered_ptq", "pruned_clustered", "post_training_quantize"),
        ("pcqat", "pruned_clustered", "sparsity_cluster_preserving_qat"),
        ("clustered", ROOT, "cluster"),
        ("clustered_ptq", "clustered", "post_training_quantize"),
        ("cqat", "clustered", "cluster_preserving_qat"),
    ]
)

PRUNING = TREE.below("pruned")
CLUSTERING = TREE.below("clustered")
QUANTIZATION = TREE.restricted_to(stage.name for stage in TREE.children(ROOT) if stage.leaf)
