"""What all tests share: one thread per process, hypothesis without deadlines, and the folder of real speech."""

import os

# Before numpy, torch and numba are imported: tests run side by side, and small arrays gain nothing from threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "agg")

from asr_kd.kernels.process import choose_mkl_code_path, cpu_flags  # noqa: E402

choose_mkl_code_path(cpu_flags())  # as commands do: helper processes would else compute with other code than this one

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# No deadline: the first example may compile numba code. The same examples on every run of CI.
settings.register_profile(
    "asr_kd", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("asr_kd")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout, which holds real speech; tests that need it are skipped without it."""
    folder = Path(__file__).parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` with real speech beside the checkout")
    return folder


@pytest.fixture(scope="session")
def decoder() -> str:
    """The decoder that whole runs are tested with: k2 where it is installed, else our own."""
    return "k2" if importlib.util.find_spec("k2") else "native"


# Files and folders whose tests run stages, whole recipes or every CPU kernel: `make test-fast` leaves them out. The
# longest comes first, and runs first: at the end there is something short for each of pytest's workers.
SLOW = (
    "test_pipeline",
    "test_cluster",
    "test_two_hosts",
    "test_shell_commands",
    "test_timit_recipe",
    "test_librispeech_recipe",
    "test_prompts_recipe",
    "test_contributing",
    "test_export",
    "test_export_sherpa",
    "test_export_kaldi",
    "stages",
    "report",
    "serve",
    "recipes",
    "kernels",
    "local",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {item: _rank(item.path) for item in items}
    for item, rank in ranks.items():
        if rank < len(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: ranks[item])


def _rank(path: Path) -> int:
    """The place in SLOW; of what is not there, the place after the last."""
    tests = Path(__file__).parent
    name = path.relative_to(tests).parts[0].removesuffix(".py") if path.is_relative_to(tests) else ""
    return SLOW.index(name) if name in SLOW else len(SLOW)
