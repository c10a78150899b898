import configparser
import subprocess
import sys

import pytest

from collabopt.components.engine.deployed.accelerators import ACCELERATORS, DEFAULT_ACCELERATOR, system_of
from collabopt.components.engine.errors import CollaboptError


@pytest.fixture(scope="module")
def vela():
    from ethosu.vela import architecture_features

    return architecture_features


def test_the_accelerators_are_those_that_vela_knows(vela):
    assert list(ACCELERATORS) == vela.Accelerator.member_list()
    assert DEFAULT_ACCELERATOR == "ethos-u55-128"


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_the_system_of_an_accelerator_is_one_of_velas(vela, accelerator):
    known = configparser.ConfigParser()
    assert known.read(f"{vela.CONFIG_FILES_PATH}/Arm/vela.ini")
    system = system_of(accelerator)
    config = known[f"System_Config.{system.system_config}"]
    assert config["axi1_port"] == "OffChipFlash"
    assert system.system_config.lower().replace("_", "-").startswith(accelerator.rpartition("-")[0])
    assert known[f"Memory_Mode.{system.memory_mode}"]["const_mem_area"] == "Axi1"


def test_an_unknown_accelerator_is_refused_with_the_known_ones():
    with pytest.raises(CollaboptError, match="no accelerator 'ethos-u55-100'") as refusal:
        system_of("ethos-u55-100")
    assert all(name in refusal.value.todo for name in ACCELERATORS)


def test_the_names_come_without_anything_heavy():
    code = (
        "import sys; import collabopt.components.engine.deployed.accelerators\n"
        "print([name for name in ('numpy', 'ethosu', 'ai_edge_litert', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
