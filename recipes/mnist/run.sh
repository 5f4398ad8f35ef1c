#!/usr/bin/env bash
# The MNIST experiments of Hinton, Vinyals and Dean (2015), section 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help_message="Usage: recipes/mnist/run.sh [options]
Stages: 0 download, 1 experiments and their report.
An experiment that has run with the same settings is skipped."
stage=0                                # first stage to run
stop_stage=1                           # last stage to run
config=recipes/mnist/conf/quick.yaml   # settings: quick.yaml (minutes) or paper.yaml (hours)
work_dir=recipes/mnist                 # folder that gets download/ and exp/
mnist_dir=                             # a folder that has MNIST already: the four idx files, or their .gz
. local/parse_options.sh
. local/log.sh
. local/path.sh

if stage 0; then
  log "Stage 0: fetch MNIST"
  python recipes/mnist/run.py download ${mnist_dir:+--mnist-dir "$mnist_dir"} "$work_dir/download"
fi

if stage 1; then
  log "Stage 1: run the experiments"
  python recipes/mnist/run.py run --config "$config" --work-dir "$work_dir"
fi
