#!/usr/bin/env bash
# Distils an ensemble of acoustic models on TIMIT, recognises phones with it, and reports what it was worth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help_message="Usage: recipes/timit/run.sh --timit-dir DIR [options]
Stages: 1 prepare, 2 features, 3 align, 4 teachers, 5 soft targets, 6 all other systems, 7 decode, 8 report.
A stage whose result is already there is skipped. The corpus is the LDC's (LDC93S1): nothing is fetched."
stage=1                       # first stage to run
stop_stage=8                  # last stage to run
config=recipes/timit/conf/phones48.yaml # settings
work_dir=                     # folder that gets data/ and exp/ (default: work/<config> in this folder)
timit_dir=                    # the corpus, or a copy in its layout: the folder that holds TRAIN, or data/TRAIN
dev_speakers=                 # of a copy without TEST: take so many speakers for dev
test_speakers=                # and so many for test
nj=                           # processes at once (default: one a core, as far as memory goes)
on_bad_utterance=             # fail, or skip: leave it out, count it, list it in the report (default: the config's)
decoder=                      # k2, native or kaldi (default: k2 where it is installed, else native)
. local/parse_options.sh
. local/log.sh
. local/path.sh
work_dir=${work_dir:-recipes/timit/work/$(basename "$config" .yaml)}
recipe=(--config "$config" --work-dir "$work_dir")

if stage 1; then
  [[ -n $timit_dir ]] || _options_die "name the corpus, or a copy in its layout, with --timit-dir."
  log "Stage 1: prepare cuts, lexicon and language model"
  asr-kd prepare "${recipe[@]}" --corpus-dir "$timit_dir" ${nj:+--nj "$nj"} \
    ${dev_speakers:+--dev-speakers "$dev_speakers"} ${test_speakers:+--test-speakers "$test_speakers"} \
    ${on_bad_utterance:+--on-bad-utterance "$on_bad_utterance"}
fi

. local/stages.sh
