#!/usr/bin/env bash
# Distils an ensemble of acoustic models on half an hour of telephone prompts, and reports what it was worth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help_message="Usage: recipes/prompts/run.sh [options]
Stages: 0 download, 1 prepare, 2 features, 3 align, 4 teachers, 5 soft targets, 6 all other systems, 7 decode, 8 report.
A stage whose result is already there is skipped."
stage=0                              # first stage to run
stop_stage=8                         # last stage to run
language=en                          # of the prompts: en, fr or es
config=                              # settings (default: conf/demo.yaml, or conf/LANGUAGE.yaml)
work_dir=                            # folder that gets download/, data/ and exp/ (default: recipes/prompts[/LANGUAGE])
prompts_dir=                         # your copy of the prompts: sounds/ and core-sounds-LANGUAGE.txt
nj=                                  # processes at once (default: one a core, as far as memory goes)
on_bad_utterance=fail                # fail, or skip: leave it out, count it, list it in the report
decoder=                             # k2, native or kaldi (default: k2 where it is installed, else native)
mnist=                               # results of recipes/mnist, for a section of the report
. local/parse_options.sh
. local/log.sh
. local/path.sh
if [[ $language == en ]]; then
  config=${config:-recipes/prompts/conf/demo.yaml} work_dir=${work_dir:-recipes/prompts}
else
  config=${config:-recipes/prompts/conf/$language.yaml} work_dir=${work_dir:-recipes/prompts/$language}
fi
recipe=(--config "$config" --work-dir "$work_dir")

if stage 0; then
  log "Stage 0: fetch the prompts"
  local/download_prompts.sh --language "$language" --prompts-dir "$prompts_dir" "$work_dir/download"
fi

if stage 1; then
  log "Stage 1: prepare cuts, lexicon and language model"
  # what prompts say is known, also where a config hides their transcripts from the nets
  text=$work_dir/data/sentences.txt
  mkdir -p "$work_dir/data"
  python recipes/prompts/local/write_text.py "$language" "$work_dir/download" "$(dirname "$config")" >"$text"
  asr-kd prepare "${recipe[@]}" --corpus-dir "$work_dir/download" --lm-text "$text" ${nj:+--nj "$nj"} \
    --on-bad-utterance "$on_bad_utterance"
fi

. local/stages.sh
