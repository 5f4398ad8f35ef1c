# Puts the project's own environment, where there is one, before whatever else is on PATH: .venv, or $ASR_KD_VENV. To be
# sourced by bash from the repository's root.

venv=${ASR_KD_VENV:-.venv}
if [ -x "$venv/bin/asr-kd" ]; then PATH="$PWD/$venv/bin:$PATH"; fi
command -v asr-kd >/dev/null || {
  echo "$(basename "$0"): asr-kd is not installed here; run 'make setup' first." >&2
  exit 2
}
