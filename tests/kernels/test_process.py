"""The processor's flags are read right, MKL gets only what it needs, and glibc keeps freed memory.

Large tensors of a step then cost few page faults once the heap has grown.
"""

import os
import subprocess
import sys

import pytest

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags, disable_malloc_trim

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: X\nflags\t\t: fpu sse2 avx2 fma\n\n"
OTHER = "processor\t: 1\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16\n\n"


def test_the_first_processor_is_read(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(AMD + OTHER)
    assert cpu_flags(file) == {"AuthenticAMD", "fpu", "sse2", "avx2", "fma"}


def test_a_system_without_the_file_has_no_features(tmp_path):
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


@pytest.mark.parametrize(
    ("cpu", "before", "after"),
    [
        ({"AuthenticAMD", "avx2", "fma"}, {}, {"MKL_DEBUG_CPU_TYPE": "5"}),
        ({"AuthenticAMD", "avx2", "fma"}, {"MKL_DEBUG_CPU_TYPE": "4"}, {"MKL_DEBUG_CPU_TYPE": "4"}),
        ({"AuthenticAMD", "sse2"}, {}, {}),
        ({"GenuineIntel", "avx2", "fma"}, {}, {}),
        (set(), {}, {}),
    ],
)
def test_mkl_is_told_on_amd_only_and_a_users_choice_stays(cpu, before, after):
    environment = dict(before)
    choose_mkl_code_path(frozenset(cpu), environment)
    assert environment == after


@pytest.mark.skipif("AuthenticAMD" not in cpu_flags(), reason="this processor is not AMD's")
def test_a_command_sets_it_before_torch_is_loaded_and_an_import_does_not():
    program = (
        "import os, sys; from asr_kd.cli import main; before = os.environ.get('MKL_DEBUG_CPU_TYPE');"
        "from click.testing import CliRunner; CliRunner().invoke(main, ['plan', '--config', 'gone.yaml']);"
        "print('torch' in sys.modules, before, os.environ.get('MKL_DEBUG_CPU_TYPE'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MKL_DEBUG_CPU_TYPE"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split() == ["False", "None", "5" if {"avx2", "fma"} <= cpu_flags() else "None"]


PROGRAM = """
import resource, sys
import torch
from asr_kd.kernels.process import disable_malloc_trim

disabled = sys.argv[1] == "keep" and disable_malloc_trim()
def step():
    logits = torch.ones(10 << 20)  # 40 MiB: without being asked, glibc maps all above 32 anew
    tempered = logits / 2
    loss = (tempered.exp() * logits).sum()

for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(int(disabled), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of twenty steps in a process of their own."""
    # a command that ran in this process before has set glibc's variables for what it starts
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=others | environment)
    retained, count = done.stdout.split()
    return retained == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked to keep memory")
def test_large_tensors_fault_once():
    retained, count = faults("keep")
    if not retained:
        pytest.skip("this C library cannot be asked to keep memory")
    _, without = faults("leave")
    assert count < without / 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc reads the variables")
def test_processes_that_are_started_afterwards_keep_memory_too() -> None:
    environment: dict[str, str] = {"MALLOC_TOP_PAD_": "0"}
    if not disable_malloc_trim(environment):
        pytest.skip("this C library has no mallopt")
    assert environment.pop("MALLOC_TOP_PAD_") == "0", "what the user has set stays"
    (_, count), (_, without) = faults("leave", **environment), faults("leave")
    assert count < without / 5
