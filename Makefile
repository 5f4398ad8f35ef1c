# make demo       distil an ensemble on real speech, decode, report (recipes/prompts), after a check on MNIST
# make test       style, types, imports and all tests
# make test-fast  only the tests that are not marked slow
# Each does its own set-up: see local/setup.sh. ENV=modern takes Python 3.11 with torch 2.x instead of the reference.

.PHONY: demo test test-fast lint docs lock setup clean
ifneq ($(origin ENV),command line)
override ENV := reference # not a variable ENV of the shell
endif
VENV_reference := .venv
VENV_modern := .venv-modern
export ASR_KD_VENV := $(VENV_$(strip $(ENV)))
ifeq ($(ASR_KD_VENV),)
$(error ENV=$(ENV): there are two environments, reference and modern)
endif
# Empty means unset: where the shell forbids bytecode, each process compiles torch and all else anew, for seconds.
export PYTHONDONTWRITEBYTECODE :=
export PATH := $(CURDIR)/$(ASR_KD_VENV)/bin:$(PATH)
# a file's tests share what its fixtures make, so one worker runs them, in the order of tests/conftest.py
PYTEST := python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# digits first; where they cannot be fetched, the report says so
demo: setup
	recipes/mnist/run.sh || [ $$? -eq 2 ]
	recipes/prompts/run.sh --mnist recipes/mnist/exp/quick $(ARGS)

# style, types and imports once, with the reference's versions of the tools
test: $(if $(filter modern,$(ENV)),setup,lint)
	$(PYTEST) $(ARGS)

test-fast: setup
	$(PYTEST) -m "not slow" $(ARGS)

lint: setup
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-logo --no-cache

# the reference of all config keys, and the site in build/site; `mkdocs serve` shows it while one writes
docs: setup
	@command -v mkdocs >/dev/null || { echo "make docs: mkdocs is in the reference environment alone; leave out ENV=modern." >&2; exit 2; }
	asr-kd config --reference >docs/config.md
	NO_MKDOCS_2_WARNING=true mkdocs build --quiet

setup:
	@local/setup.sh $(strip $(ENV))

# make lock ARGS=--upgrade lets every version move; without it only what must.
lock: setup
	local/lock.sh $(ARGS)

# The environments and the recipes' data and results stay.
clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find asr_kd tests -name __pycache__ -type d -prune -exec rm -rf {} +
