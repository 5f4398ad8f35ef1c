#!/usr/bin/env bash
# Makes requirements.lock anew from pyproject.toml and requirements.in; `--upgrade` lets every version move.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=uv
command -v uv >/dev/null 2>&1 || uv=.uv/bin/uv
# Each k2 1.23.4 wheel claims to fit every Python but holds the binary of one; this is the one for 3.10, Linux x86-64.
k2_hash=sha256:1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c

draft=.requirements.lock.tmp
trap 'rm -f "$draft"' EXIT
if [ -f requirements.lock ]; then cp requirements.lock "$draft"; fi # versions stay unless told otherwise
"$uv" pip compile --quiet --python .venv/bin/python --python-version 3.10 --python-platform x86_64-manylinux_2_28 \
  --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-header "$@" \
  --output-file "$draft" pyproject.toml requirements.in
{
  echo "# The reference environment: Python 3.10 on Linux x86-64. Made by \`make lock\` from pyproject.toml and"
  echo "# requirements.in; installed with --require-hashes by \`make setup\`. k2 has one hash on purpose: see local/lock.sh."
  awk -v k2="$k2_hash" '
    /^[^ #]/ { in_k2 = /^k2==/ }
    in_k2 && /--hash=/ { if (!done) print "    --hash=" k2; done = 1; next }
    /^#/ && !started { next }
    { started = 1; print }
  ' "$draft"
} >requirements.lock.new
mv requirements.lock.new requirements.lock
