"""MLflow: one parent run per pipeline run, one child per stage.

MLflow is the mirror that people look at; nothing is ever decided from it. Importing this package does not import
`mlflow`, which costs about a second.
"""

from collabopt.components.engine.tracking.parent import ParentRun, fail_parent, open_parent
from collabopt.components.engine.tracking.reachable import check_reachable
from collabopt.components.engine.tracking.stage import StageRun, stage_run

__all__ = ["ParentRun", "StageRun", "check_reachable", "fail_parent", "open_parent", "stage_run"]
