"""What a pipeline does with predictions: its parameter `prescreen`."""

from collabopt.components.engine.errors import CollaboptError

SKIP = "skip"
REPORT = "report"
OFF = "off"
MODES = (SKIP, REPORT, OFF)


def check_mode(mode: str, where: str = "pipeline parameter 'prescreen'") -> None:
    """Refuses what is none of `MODES`.

    Args:
        mode: `skip` leaves out the training of what cannot meet the policy, `report` only compares what was predicted
            with what was trained, `off` predicts nothing; a search, which lives by predictions, takes it for `report`.
        where: What it was given by.

    Raises:
        CollaboptError: It is none of them.
    """
    if mode not in MODES:
        raise CollaboptError(f"'{mode}' is no way to prescreen", where=where, todo=f"use one of: {', '.join(MODES)}")
