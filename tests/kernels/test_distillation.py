"""The losses by rows are the same to the last bit, whether its machine code was compiled now or found on disk."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib, torch
from asr_kd.kernels.cross_entropy import FusedCrossEntropy
from asr_kd.kernels.distillation import FusedDistillationLoss

torch.manual_seed(0)
found = hashlib.sha256()
for temperature in (1.0, 2.0):
    logits = (3 * torch.randn(2, 16, 1000)).requires_grad_()
    targets, states = (3 * torch.randn(16, 1000)).log_softmax(-1), torch.randint(1000, (16,))
    total, soft, hard, right = FusedDistillationLoss.apply(logits, targets, states, temperature, 0.7)
    total.sum().backward()
    entropy, of_hard = FusedCrossEntropy.apply(logits, states, torch.rand(2, 16))
    entropy.sum().backward()
    for numbers in (total.detach(), soft, hard, right, entropy.detach(), of_hard, logits.grad):
        found.update(numbers.numpy().tobytes())
print(found.hexdigest())
"""


def test_compiled_now_or_before_it_gives_the_same_bits(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    )
    assert first.stdout == second.stdout and len(first.stdout.strip()) == 64
    assert any(tmp_path.rglob("*.nbc")), "nothing was kept on disk: the second run compiled too"
