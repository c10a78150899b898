"""What every component calls: one function per kind of stage, from directories to directories.

A stage reads its parent's artifact, never shares an object with it, and writes its own; it reports progress, logs to
MLflow, and returns the scalars that go into KFP's metrics.
"""

from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.stages.baseline import import_model_stage
from collabopt.components.engine.stages.data import load_dataset_stage
from collabopt.components.engine.stages.decision import assess_stage, gate_stage
from collabopt.components.engine.stages.prescreen import prescreen_stage
from collabopt.components.engine.stages.propose import propose_stage
from collabopt.components.engine.stages.tree_stage import run_stage

__all__ = [
    "StageResult",
    "assess_stage",
    "gate_stage",
    "import_model_stage",
    "load_dataset_stage",
    "prescreen_stage",
    "propose_stage",
    "run_stage",
]
