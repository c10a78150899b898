"""What a search asks for that is given no policy: better than the default tree, in both accuracy and size."""

import yaml

from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.policy.policy import Policy, parse_policy

_SIZE = "packed_bytes"


def beating(default: Decision) -> str:
    """The policy whose goals are the figures of the winner among the default configuration's leaves.

    The winner itself meets it, so that the search ends with a leaf at least as good. Where the default configuration
    has no winner, it is the gate's default policy.

    Args:
        default: The gate's decision, by its default policy, over the leaves of the first trial.

    Returns:
        YAML.
    """
    winner = next((verdict for verdict in default.verdicts if verdict.leaf == default.winner), None)
    if winner is None or winner.metric is None:
        return yaml.safe_dump(Policy().model_dump(mode="json", exclude_none=True, exclude_defaults=True)) or ""
    policy = {
        "goals": [
            {"figure": "metric", "threshold": winner.metric},
            {"figure": _SIZE, "threshold": winner.figures[_SIZE]},
        ]
    }
    text = yaml.safe_dump(policy, sort_keys=False)
    parse_policy(text)
    return text
