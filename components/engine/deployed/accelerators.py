"""The Arm Ethos-U configurations that footprints are estimated for, and the systems assumed around them."""

from dataclasses import dataclass
from typing import Literal, get_args

from collabopt.components.engine.errors import CollaboptError

Accelerator = Literal[
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
]
ACCELERATORS: tuple[str, ...] = get_args(Accelerator)
DEFAULT_ACCELERATOR: Accelerator = "ethos-u55-128"


@dataclass(frozen=True)
class System:
    """What is assumed around an NPU, by the names in Vela's `Arm/vela.ini`.

    Attributes:
        system_config: Clock, and speed of the memories.
        memory_mode: What lies in which memory.
    """

    system_config: str
    memory_mode: str


# 500 MHz, activations in SRAM, weights in off-chip flash: the one system that vela.ini knows for all three, so that
# the figures of one name mean one thing. On a board with DRAM, flash_bytes lie there.
_SYSTEMS = {
    "ethos-u55": System("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": System("Ethos_U65_Embedded", "Shared_Sram"),
    "ethos-u85": System("Ethos_U85_SYS_Flash_High", "Shared_Sram"),
}


def system_of(accelerator: str) -> System:
    """The system assumed around an accelerator.

    Raises:
        CollaboptError: There is no such accelerator.
    """
    if accelerator not in ACCELERATORS:
        raise CollaboptError(
            f"there is no accelerator '{accelerator}'", todo=f"accelerators: {', '.join(ACCELERATORS)}"
        )
    return _SYSTEMS[accelerator.rpartition("-")[0]]
