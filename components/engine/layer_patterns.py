"""Settings of single layers, chosen by name or pattern."""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from collabopt.components.engine.errors import CollaboptError

# What leaves a layer as it is, in the place of settings of its own.
EXCLUDE = "exclude"

_WILDCARD = re.compile(r"\*|\?|\[!?.[^\]]*\]")

Value = TypeVar("Value")


class LayerPatternError(CollaboptError):
    """A pattern that no model with these layers can be treated by, whatever the settings."""


def settings_by_layer(patterns: Mapping[str, Value], layers: Collection[str], what: str) -> dict[str, Value]:
    """Which settings every layer gets, of those that patterns give.

    The most specific pattern wins: the layer's own name before any wildcard, then the one with more characters that are
    no wildcards. Their order does not count: Kubernetes and Kubeflow keep maps without one.

    Args:
        patterns: Name or pattern as in a shell (`*`, `?`, `[abc]`; upper and lower case differ) -> settings.
        layers: Names of the layers that there are settings for.
        what: What is done to these layers, as "pruned".

    Returns:
        Layer -> settings, for layers that some pattern matches.

    Raises:
        LayerPatternError: A pattern matches no layer, or two that disagree are equally specific for one.
    """
    for pattern in patterns:
        if not any(_matches(layer, pattern) for layer in layers):
            raise LayerPatternError(
                f"no layer that can be {what} matches '{pattern}'",
                where=f"layers, '{pattern}'",
                todo=f"layers that can be {what}: {', '.join(layers)}",
            )
    found = {}
    for layer in layers:
        matching = ranked_patterns(layer, patterns)
        if not matching:
            continue
        best, *others = matching
        for other in others:
            if _rank(layer, other) == _rank(layer, best) and patterns[other] != patterns[best]:
                raise LayerPatternError(
                    f"'{best}' and '{other}' both match layer '{layer}', and neither is more specific",
                    where=f"layers, '{best}'",
                    todo=f"give '{layer}' settings under its own name",
                )
        found[layer] = patterns[best]
    return found


def ranked_patterns(layer: str, patterns: Collection[str]) -> list[str]:
    """The patterns that match a layer, the most specific first."""
    return sorted(
        (each for each in patterns if _matches(layer, each)), key=lambda each: _rank(layer, each), reverse=True
    )


def _matches(layer: str, pattern: str) -> bool:
    return layer == pattern or fnmatchcase(layer, pattern)


def _rank(layer: str, pattern: str) -> tuple[bool, int]:
    return layer == pattern, len(_WILDCARD.sub("", pattern))
