# make demo   distil an ensemble on real speech, decode, report (recipes/prompts), after a check on MNIST
# make test   style, types and all tests
# Both do all of their own set-up: see local/setup.sh.

.PHONY: demo test lint lock setup clean
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# digits first; where they cannot be had, the report says so
demo: setup
	recipes/mnist/run.sh || [ $$? -eq 2 ]
	recipes/prompts/run.sh --mnist recipes/mnist/exp/quick $(ARGS)

test: lint
	python -m pytest -n auto --maxprocesses 4 $(ARGS)

lint: setup
	ruff format --check .
	ruff check .
	mypy

setup:
	@local/setup.sh

# make lock ARGS=--upgrade lets every version move; without it only what must.
lock: setup
	local/lock.sh $(ARGS)

# The environments and the recipes' data and results stay.
clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find asr_kd tests -name __pycache__ -type d -prune -exec rm -rf {} +
