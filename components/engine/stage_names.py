"""Names of stages where one tree is grown several times: `pcqat@3` is the stage `pcqat` as trial 3 has it."""

BASELINE = "baseline"
"""The root of the tree: the model that everything begins with."""

_SEPARATOR = "@"


def name_in_trial(stage: str, trial: int | None) -> str:
    """The name of a stage in a trial; that of the tree where there is no trial."""
    return stage if trial is None else f"{stage}{_SEPARATOR}{trial}"


def split_name(name: str) -> tuple[str, int | None]:
    """The stage of the tree, and the trial, of a name; None where it names none."""
    stage, _, trial = name.partition(_SEPARATOR)
    return stage, int(trial) if trial else None
