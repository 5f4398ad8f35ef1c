"""What the processor says of itself is read right, and MKL is given it only where it needs it."""

import os
import subprocess
import sys

import pytest

from asr_kd.kernels.cpu import choose_mkl_code_path, cpu_flags

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
