#!/usr/bin/env bash
# Updates requirements.lock and requirements-modern.lock from pyproject.toml and the .in file of each; versions stay as
# they are where they can. `--upgrade` lets every version move.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=uv
command -v uv >/dev/null 2>&1 || uv=.uv/bin/uv
# Each k2 1.23.4 wheel claims to fit every Python but holds the binary of one; this is the one for 3.10, Linux x86-64.
k2_hash=sha256:1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c
draft=.requirements.lock.tmp
trap 'rm -f "$draft"' EXIT

# compile NAME PYTHON OPTIONS...: $draft becomes what NAME.lock would be; the comments at its top are left out
compile() {
  local name=$1 python=$2
  shift 2
  rm -f "$draft"
  if [ -f "$name.lock" ]; then cp "$name.lock" "$draft"; fi
  "$uv" pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_28 \
    --extra bench --extra dask --extra dev --extra export --extra mic --extra serve --extra tensorboard \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-header "$@" \
    --output-file "$draft" pyproject.toml "$name.in"
  sed -i '/^[^#]/,$!d' "$draft"
}

compile requirements 3.10 --extra docs "$@"
{
  echo "# The reference environment: Python 3.10 on Linux x86-64. Made by \`make lock\` from pyproject.toml and"
  echo "# requirements.in; installed with --require-hashes by \`make setup\`. k2 has one hash on purpose: see local/lock.sh."
  awk -v k2="$k2_hash" '
    /^[^ #]/ { in_k2 = /^k2==/ }
    in_k2 && /--hash=/ { if (!done) print "    --hash=" k2; done = 1; next }
    { print }
  ' "$draft"
} >requirements.lock.new
mv requirements.lock.new requirements.lock

compile requirements-modern 3.11 "$@"
{
  echo "# The modern environment: Python 3.11 or newer on Linux x86-64. Made by \`make lock\` from pyproject.toml and"
  echo "# requirements-modern.in; installed with --require-hashes by \`make setup ENV=modern\`, after torch and the parts of"
  echo "# CUDA that it needs, which pip chooses for the machine and which are not listed here."
  awk '/^[^ #]/ { skip = /^(torch==|triton==|nvidia-|cuda-)/ } !skip' "$draft"
} >requirements-modern.lock.new
mv requirements-modern.lock.new requirements-modern.lock
