#!/usr/bin/env bash
# Distils an ensemble of acoustic models on LibriSpeech, from a few hours to all 960, and reports what it was worth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help_message="Usage: recipes/librispeech/run.sh [options]
Stages: 0 download, 1 prepare, 2 features, 3 align, 4 teachers, 5 soft targets, 6 all other systems, 7 decode, 8 report.
A stage whose result is already there is skipped. Only stage 0 uses the network; --corpus-dir makes it needless,
unless --openslr true or --rescore-lm asks for files of OpenSLR's."
stage=0                       # first stage to run
stop_stage=8                  # last stage to run
config=recipes/librispeech/conf/clean100.yaml # settings
work_dir=                     # folder that gets download/, data/ and exp/ (default: work/<config> in this folder)
corpus_dir=                   # LibriSpeech at hand: the folder that holds train-clean-100 and so on
train_parts=                  # parts to train on, with commas between (default, here and below: the config's)
dev_parts=config              # parts to choose settings on; '' for none
test_parts=                   # parts to score
dev_speakers=                 # take so many training speakers for dev, in place of parts unless those are named too
lexicon=                      # WORD PH1 PH2 ... lines, such as librispeech-lexicon.txt
lm=                           # an ARPA file, gzipped or not
openslr=false                 # true: stage 0 fetches OpenSLR's lexicon and language model beside --corpus-dir too
openslr_lm=3-gram.pruned.3e-7 # the language model that stage 0 fetches where none is named
rescore_lm=                   # for a second pass: ARPA files or OpenSLR's 3-gram.pruned.1e-7, 3-gram, commas between
lm_text=                      # sentences to estimate a language model from, gzipped or not
nj=$(nproc)                   # processes at once
on_bad_utterance=             # fail, or skip: leave it out, count it, list it in the report
decoder=                      # k2 or kaldi (default: k2 where it is installed)
. local/parse_options.sh
. local/log.sh
. local/path.sh
work_dir=${work_dir:-recipes/librispeech/work/$(basename "$config" .yaml)}
recipe=(--config "$config" --work-dir "$work_dir")

# of a dev set by parts and one by speakers, naming one puts the other out of what the config says
if [[ $dev_parts == config && ${dev_speakers:-0} != 0 ]]; then dev_parts=; fi
parts=(${train_parts:+--train-parts "$train_parts"} ${test_parts:+--test-parts "$test_parts"})
if [[ $dev_parts != config ]]; then
  parts+=(--dev-parts "$dev_parts")
  if [[ -n $dev_parts ]]; then dev_speakers=${dev_speakers:-0}; fi
fi

fetched=$work_dir/download
second_pass=() named=()
IFS=, read -ra models <<<"$rescore_lm"
if [[ -n $rescore_lm && $decoder == kaldi ]]; then _options_die "--rescore-lm needs the lattices of --decoder k2."; fi
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
  wanted=("${named[@]}")
  if [[ -z $corpus_dir || $openslr == true ]]; then
    if [[ -z $lexicon ]]; then wanted+=(--lexicon); fi
    if [[ -z $lm$lm_text ]]; then wanted+=(--lm "$openslr_lm"); fi
  fi
  if [[ -z $corpus_dir ]]; then
    log "Stage 0: fetch the corpus"
    asr-kd download "${recipe[@]}" "${parts[@]}" "${wanted[@]}"
  elif [[ ${#wanted[@]} -gt 0 ]]; then
    log "Stage 0: fetch the language part"
    asr-kd download "${recipe[@]}" --train-parts '' --dev-parts '' --test-parts '' "${wanted[@]}"
  fi
fi
# what stage 0 has fetched, now or earlier, is used unless something else is named; not what was for a second pass
if [[ -z $lexicon && -f $fetched/librispeech-lexicon.txt ]]; then lexicon=$fetched/librispeech-lexicon.txt; fi
first_pass=true
if [[ -n $corpus_dir && $openslr == false && ,$rescore_lm, == *,"$openslr_lm",* ]]; then first_pass=false; fi
if [[ -z $lm$lm_text && $first_pass == true && -f $fetched/$openslr_lm.arpa.gz ]]; then
  lm=$fetched/$openslr_lm.arpa.gz
fi

if stage 1; then
  log "Stage 1: prepare cuts, lexicon and language model"
  asr-kd prepare "${recipe[@]}" "${parts[@]}" --corpus-dir "${corpus_dir:-$fetched}" --nj "$nj" \
    ${dev_speakers:+--dev-speakers "$dev_speakers"} ${lexicon:+--lexicon "$lexicon"} ${lm:+--lm "$lm"} \
    ${lm_text:+--lm-text "$lm_text"} ${on_bad_utterance:+--on-bad-utterance "$on_bad_utterance"}
fi

. local/stages.sh
