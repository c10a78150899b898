"""What an update costs: the patches from the champion's file, and the download of a device and of a fleet in words."""

from collabopt.components.engine.deployed.delta import Patch, make_patches
from collabopt.components.engine.gate.candidates import Candidates
from collabopt.components.engine.gate.decision import Decision, Verdict
from collabopt.components.engine.policy.figures import DELTA, UPDATE, in_words
from collabopt.components.engine.release.names import DIGEST_SHOWN

_BYTES_PER_GB = 1e9


def delta_sizes(champion: bytes | None, candidates: Candidates) -> dict[str, int]:
    """How large the smallest patch to every leaf is.

    Args:
        champion: The champion's file; None where there is none.
        candidates: The leaves.

    Returns:
        Leaf -> bytes; 0 for the champion's own file, which no device downloads again. Empty without a champion.
    """
    if champion is None:
        return {}
    patches = {leaf: patches_between(champion, candidates.tflite(leaf)) for leaf in candidates.reports}
    return {leaf: min((len(patch.content) for patch in made), default=0) for leaf, made in patches.items()}


def patches_between(champion: bytes, tflite: bytes) -> tuple[Patch, ...]:
    """The patches from the champion's file to another, proven; none where they are the same."""
    return () if champion == tflite else make_patches(champion, tflite)


def update_in_words(decision: Decision, verdict: Verdict) -> str:
    """What a device downloads to get a leaf and, where the policy says how many there are, all devices together."""
    size = verdict.figures.get(UPDATE)
    if size is None:
        return "not known"
    words = f"{in_words(UPDATE, size)} a device, {_how(decision, verdict)}"
    devices = decision.policy.fleet_size
    if devices is None:
        return words
    return f"{words}; {size * devices / _BYTES_PER_GB:,.3g} GB for a fleet of {devices:,}"


def _how(decision: Decision, verdict: Verdict) -> str:
    champion, patch = decision.champion, verdict.figures.get(DELTA)
    packed = verdict.figures.get("packed_bytes")
    if champion is None or patch is None:
        return "the packed file; there is no champion yet to make a patch from"
    if champion.sha256 == verdict.sha256:
        return "which has this file already: it is the champion's"
    base = f"the champion '{champion.leaf}' ({champion.sha256[:DIGEST_SHOWN]})"
    if patch == verdict.figures[UPDATE]:
        full = "" if packed is None else f"; the packed file is {in_words(UPDATE, packed)}"
        return f"a patch from {base}{full}"
    return f"the packed file; a patch from {base} would be {in_words(DELTA, patch)}"
