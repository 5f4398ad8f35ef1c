# Puts the project's own environment, where there is one, before whatever else is on PATH. To be sourced by bash from
# the repository's root.

if [ -x .venv/bin/asr-kd ]; then PATH="$PWD/.venv/bin:$PATH"; fi
command -v asr-kd >/dev/null || {
  echo "$(basename "$0"): asr-kd is not installed here; run 'make setup' first." >&2
  exit 2
}
