"""What a config will take, before any of it is run."""

from asr_kd.planning.plan import Plan, plan

__all__ = ["Plan", "plan"]
