#!/usr/bin/env bash
# One member of a system as a job of SLURM. All members, ten of them, four cores each:
#   sbatch --array=0-9 --cpus-per-task=4 --mem=8G --time=12:00:00 local/slurm.sh SYSTEM CONFIG [OPTION...]
# Run it in the folder of the checkout; the work folder must be on a file system that all machines see.
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "usage: sbatch --array=0-N local/slurm.sh SYSTEM CONFIG [OPTION of asr-kd train...]" >&2
  exit 2
fi
system=$1 config=$2
shift 2
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
exec asr-kd train "$system" --member "$SLURM_ARRAY_TASK_ID" --config "$config" "$@"
