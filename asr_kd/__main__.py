"""`python -m asr_kd`: the command asr-kd, as torchrun starts it."""

import asr_kd.cli  # noqa: F401 - its commands are added to main
from asr_kd.commands import main

main(prog_name="asr-kd")
