#!/usr/bin/env bash
# Distils an ensemble of acoustic models on LibriSpeech, from a few hours to all 960, and reports what it was worth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help_message="Usage: recipes/librispeech/run.sh [options]
Stages: 0 download, 1 prepare, 2 features, 3 align, 4 teachers, 5 soft targets, 6 all other systems, 7 decode, 8 report.
A stage whose result is already there is skipped. Only stage 0 uses the network; with --corpus-dir it downloads nothing
unless --openslr true or --rescore-lm asks for files of OpenSLR's."
stage=0                       # first stage to run
stop_stage=8                  # last stage to run
config=recipes/librispeech/conf/clean100.yaml # settings
work_dir=                     # folder that gets download/, data/ and exp/ (default: work/<config> in this folder)
corpus_dir=                   # a copy of LibriSpeech: the folder that holds train-clean-100 and so on
train_parts=                  # parts to train on, with commas between (default, here and below: the config's)
dev_parts=config              # parts to choose settings on; '' for none
test_parts=                   # parts of the set test; of other sets: --sets
sets=                         # parts of any sets: NAME=PART,PART, with spaces between sets
dev_speakers=                 # take so many training speakers for dev; it and --dev-parts override each other
lexicon=                      # WORD PH1 PH2 ... lines, such as librispeech-lexicon.txt
lm=                           # an ARPA file, gzipped or not
openslr=false                 # true: stage 0 downloads OpenSLR's lexicon and language model beside --corpus-dir too
openslr_lm=3-gram.pruned.3e-7 # the language model that stage 0 downloads where none is named
rescore_lm=                   # for a second pass: ARPA files or OpenSLR's 3-gram.pruned.1e-7, 3-gram, commas between
lm_text=                      # sentences to estimate a language model from, gzipped or not
nj=                           # processes at once (default: one a core, as far as memory goes)
on_bad_utterance=             # fail, or skip: leave it out, count it, list it in the report
decoder=                      # k2, native or kaldi (default: k2 where it is installed, else native)
. local/parse_options.sh
. local/log.sh
. local/path.sh
work_dir=${work_dir:-recipes/librispeech/work/$(basename "$config" .yaml)}
recipe=(--config "$config" --work-dir "$work_dir")

parts=()
if [[ $dev_parts != config ]]; then sets+=" dev=$dev_parts"; fi
for set in $sets ${train_parts:+"train=$train_parts"} ${test_parts:+"test=$test_parts"}; do parts+=(--set "$set"); done
if [[ -n $dev_speakers ]]; then parts+=(--dev-speakers "$dev_speakers"); fi

fetched=$work_dir/download
second_pass=() named=()
IFS=, read -ra models <<<"$rescore_lm"
if [[ -n $rescore_lm && $decoder == kaldi ]]; then _options_die "--rescore-lm needs the lattices of --decoder k2 or native."; fi
for name in "${models[@]}"; do
  if [[ $name != */* && $name != *.arpa && $name != *.arpa.gz ]]; then # one of OpenSLR's names
    named+=(--lm "$name")
    name=$fetched/$name.arpa.gz
  elif [[ ! -f $name ]]; then
    _options_die "--rescore-lm: there is no file $name."
  fi
  second_pass+=(--rescore-lm "$name")
done

if stage 0; then
  language=("${named[@]}")
  if [[ -z $corpus_dir || $openslr == true ]]; then
    if [[ -z $lexicon ]]; then language+=(--lexicon); fi
    if [[ -z $lm$lm_text ]]; then language+=(--lm "$openslr_lm"); fi
  fi
  if [[ -z $corpus_dir ]]; then
    log "Stage 0: download the corpus"
    asr-kd download "${recipe[@]}" "${parts[@]}" "${language[@]}"
  elif [[ ${#language[@]} -gt 0 ]]; then
    log "Stage 0: download lexicon and language models"
    asr-kd download "${recipe[@]}" --no-corpus "${language[@]}"
  fi
fi
# What stage 0 downloaded, now or earlier, is used unless something else is named; not the models of a second pass.
if [[ -z $lexicon && -f $fetched/librispeech-lexicon.txt ]]; then lexicon=$fetched/librispeech-lexicon.txt; fi
first_pass=true
if [[ -n $corpus_dir && $openslr == false && ,$rescore_lm, == *,"$openslr_lm",* ]]; then first_pass=false; fi
if [[ -z $lm$lm_text && $first_pass == true && -f $fetched/$openslr_lm.arpa.gz ]]; then
  lm=$fetched/$openslr_lm.arpa.gz
fi

if stage 1; then
  log "Stage 1: prepare cuts, lexicon and language model"
  asr-kd prepare "${recipe[@]}" "${parts[@]}" --corpus-dir "${corpus_dir:-$fetched}" ${nj:+--nj "$nj"} \
    ${lexicon:+--lexicon "$lexicon"} ${lm:+--lm "$lm"} \
    ${lm_text:+--lm-text "$lm_text"} ${on_bad_utterance:+--on-bad-utterance "$on_bad_utterance"}
fi

. local/stages.sh
