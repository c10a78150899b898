"""The deployment gate: a policy, a decision that gives every leaf its reason, and the promotion of the winner."""

from collabopt.components.engine.gate.decision import Decision, Verdict, assess, decide
from collabopt.components.engine.gate.policy import Policy, parse_policy, read_policy
from collabopt.components.engine.gate.run import run_gate

__all__ = ["Decision", "Policy", "Verdict", "assess", "decide", "parse_policy", "read_policy", "run_gate"]
