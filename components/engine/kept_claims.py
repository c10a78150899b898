"""What is left of a parent's claims below a technique."""

from collections.abc import Mapping
from typing import Any

from collabopt.components.engine.records import Claims
from collabopt.components.engine.techniques import CLUSTERED, SPARSE, Technique


def kept_claims(claims: Claims, technique: Technique, settings: Mapping[str, Any]) -> Claims:
    """The claims that a technique has to keep.

    Args:
        claims: What its parent claims.
        technique: What is done to the parent.
        settings: With which hyperparameters; `palette`, where it has one, says what becomes of one palette per tensor.
    """
    sparse, clustered = SPARSE in technique.preserves, CLUSTERED in technique.preserves
    return Claims(
        sparsity=claims.sparsity if sparse else {},
        zero_positions=claims.zero_positions if sparse else {},
        clusters=claims.clusters if clustered else {},
        palette=settings.get("palette", claims.palette) if claims.palette == "tensor" else "channel",
    )
