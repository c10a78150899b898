"""`collabopt gate`: decides again over the leaves of a finished run, without training anything."""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import (
    BASELINE_FILE,
    PRESCREEN_FILE,
    REPORT_FILE,
    SAMPLE_FILE,
    SKIPPED_FILE,
    read_baseline,
)
from collabopt.pipelines.arguments import policy_text
from collabopt.pipelines.output_directory import LEAVES, open_output
from collabopt.pipelines.preflight import check_engine


def gate_again(
    directory: Path, *, policy_file: Path | None, name: str, releases: str, dry_run: bool, console: Console
) -> None:
    """Decides over a run's output directory, prints the tables, and (but for a dry run) releases the winner.

    Args:
        directory: What `collabopt run` has left.
        policy_file: File with the policy, or the name of an example; None for the default policy.
        name: Name of the registered model and of the releases.
        releases: Where releases are kept; "" for the registry alone.
        dry_run: Whether nothing is to be promoted or written.
        console: Where to.

    Raises:
        CollaboptError: The directory is not what a run leaves, the policy is not valid, the winner cannot be proven,
            its release fails, or no leaf qualifies and the policy lets the run fail over it.
    """
    check_engine()
    from collabopt.components.engine.gate.candidates import read_candidates
    from collabopt.components.engine.gate.run import Gate, run_gate
    from collabopt.components.engine.gate.sample import read_samples
    from collabopt.components.engine.policy.policy import parse_policy
    from collabopt.components.engine.prescreen.records import read_prescreen
    from collabopt.pipelines.outcome import Outcome, check_qualified, leaves_below, print_outcome

    sys.path.insert(0, os.getcwd())  # where a run finds a task of one's own
    leaves = _leaf_directories(directory)
    gate = Gate(
        read_candidates(read_baseline(directory / BASELINE_FILE), leaves),
        parse_policy(policy_text(policy_file) if policy_file else ""),
        functools.partial(read_samples, directory / SAMPLE_FILE),
        name,
        releases,
        read_prescreen(directory / PRESCREEN_FILE) if (directory / PRESCREEN_FILE).is_file() else None,
    )
    if dry_run:
        decision, _ = gate.decide()
    else:
        with open_output(directory):
            decision = run_gate(gate, directory, {})
    print_outcome(console, Outcome(leaves_below(directory / LEAVES), decision, directory), {})
    if dry_run:
        console.print("dry run: nothing was promoted or written")
    check_qualified(decision, directory)


def _leaf_directories(directory: Path) -> Mapping[str, Path]:
    records = (path for name in (REPORT_FILE, SKIPPED_FILE) for path in sorted((directory / LEAVES).glob(f"*/{name}")))
    found = {path.parent.name: path.parent for path in records}
    if not found or not os.path.isfile(directory / BASELINE_FILE):
        raise CollaboptError(
            "these are not the leaves of a finished run",
            where=str(directory),
            todo=f"pass the directory that `collabopt run` has written; it holds {LEAVES}/ and {BASELINE_FILE}",
        )
    return found
