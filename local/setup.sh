#!/usr/bin/env bash
# Sets up an environment, with the project installed editable; does nothing where it is already as its lock file says.
#   local/setup.sh           .venv: Python 3.10 and requirements.lock, every hash checked
#   local/setup.sh modern    .venv-modern: Python 3.11 ($PYTHON, where that is set), torch 2.x in the build that pip
#                            chooses for this machine, and requirements-modern.lock, every hash checked
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "set-up: $*" >&2
  exit 1
}

case ${1:-reference} in
  reference) venv=.venv lock=requirements.lock python=3.10 torch= ;;
  modern)
    venv=.venv-modern lock=requirements-modern.lock python=${PYTHON:-3.11}
    torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements-modern.in)
    ;;
  *) die "there are two environments, reference and modern; not $1." ;;
esac

# The place belongs to the stamp: scripts in an environment and the editable install hold absolute paths.
expected=$({ pwd -P; echo "$python $torch"; cat "$lock" pyproject.toml; } | sha256sum | cut -d ' ' -f 1)
stamp=$venv/asr_kd.stamp
if [ "$(cat "$stamp" 2>/dev/null)" = "$expected" ] && "$venv/bin/python" -c '' 2>/dev/null; then
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

echo "set-up: making $venv from $lock" >&2
rm -rf "$venv"
"$uv" venv --quiet ${torch:+--seed} --python "$python" "$venv" ||
  die "there is no Python $python here and uv could not fetch one; install it (pyenv install $python, or your system's python$python), then run make again."
if [ -n "$torch" ]; then
  # pip, not uv: pip also looks where it is configured to, so a build of torch that is already on this machine is taken
  "$venv/bin/python" -m pip install --quiet --quiet "$torch"
  "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes --requirement "$lock"
  # torchaudio's compiled part needs CUDA's libraries and stops its import where torch has none; nothing here uses it
  if ! "$venv/bin/python" -c 'import torchaudio' 2>/dev/null; then rm -f "$venv"/lib/python*/site-packages/torchaudio/lib/*.so; fi
else
  "$uv" pip sync --python "$venv/bin/python" --require-hashes "$lock"
fi
# compat: a path, not a finder, which a folder named asr_kd beside one's script would hide: the clone itself
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation \
  --config-settings editable_mode=compat --editable .
echo "$expected" >"$stamp" # last: an interrupted set-up leaves no stamp
echo "set-up: done; \`source $venv/bin/activate\` puts asr-kd on the path of this shell" >&2
