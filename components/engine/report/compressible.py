"""Which weight tensors pruning and clustering work on."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

# No stage prunes or clusters depthwise kernels: they are few, and each of their weights counts.
_NOT_COMPRESSED = "DEPTHWISE_CONV_2D"


class _HasOperator(Protocol):
    @property
    def op(self) -> str: ...


Tensor = TypeVar("Tensor", bound=_HasOperator)


def compressible(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those of the weight tensors, as read or as reported, that a stage may compress."""
    return [tensor for tensor in tensors if tensor.op != _NOT_COMPRESSED]
