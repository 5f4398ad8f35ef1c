"""Losses are the same to the last bit, whether their machine code was compiled now or read from the cache."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, torch
from asr_kd.kernels.softmax import cross_entropy, soft_cross_entropy

torch.manual_seed(0)
digest = hashlib.sha256()
for temperature in (1.0, 2.0):
    logits = (3 * torch.randn(2, 16, 1000)).requires_grad_()
    targets, senones = (3 * torch.randn(16, 1000)).log_softmax(-1), torch.randint(1000, (16,))
    weights = {"soft_weights": torch.rand(16), "hard_weights": torch.rand(16)}
    soft_terms = soft_cross_entropy(logits, targets, senones, temperature=temperature, **weights)
    soft_terms.loss.sum().backward()
    hard_terms = cross_entropy(logits, senones, torch.rand(2, 16))
    hard_terms[0].sum().backward()
    for numbers in (*soft_terms, *hard_terms, logits.grad):
        digest.update(numbers.detach().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_compiled_or_cached_code_gives_the_same_bits(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    )
    assert first.stdout == second.stdout and len(first.stdout.strip()) == 64
    assert any(tmp_path.rglob("*.nbc")), "nothing was cached: the second run compiled too"
