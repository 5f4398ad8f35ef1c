#!/usr/bin/env bash
# Makes .venv, the reference environment: Python 3.10, requirements.lock (every hash checked), the project editable.
# Where .venv is already what the lock says, it only checks that. What is half-made is made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "set-up: $*" >&2
  exit 1
}

# The place belongs to the stamp: scripts in a .venv and the editable install hold absolute paths.
wanted=$({ pwd -P; cat requirements.lock pyproject.toml; } | sha256sum | cut -d ' ' -f 1)
stamp=.venv/asr_kd.stamp
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  exit 0
fi

if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
  uv=uv
else
  uv=.uv/bin/uv
  if ! "$uv" --version >/dev/null 2>&1; then
    echo "set-up: fetching uv into .uv" >&2
    rm -rf .uv
    python3 -m venv .uv || die "python3 cannot make a virtual environment; install its venv module (Debian: python3-venv)."
    .uv/bin/python -m pip install --quiet uv || die "pip could not fetch uv; install uv by hand and put it on PATH."
  fi
fi

echo "set-up: making .venv from requirements.lock" >&2
rm -f "$stamp"
rm -rf .venv
"$uv" venv --quiet --python 3.10 .venv ||
  die "there is no Python 3.10 here and uv could not fetch one; install it (pyenv install 3.10, or your system's python3.10), then run make again."
"$uv" pip sync --python .venv/bin/python --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
echo "$wanted" >"$stamp" # last: an interrupted set-up leaves no stamp
