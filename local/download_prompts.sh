#!/usr/bin/env bash
# Fetches the Asterisk core prompts, release 1.6.1 (8 kHz WAV), into FOLDER/sounds/ and FOLDER/core-sounds-LANGUAGE.txt.
set -euo pipefail

help_message="Usage: local/download_prompts.sh [options] FOLDER
From Debian's packages where there is apt-get (no root needed), else from their makers' tarball."
language=en   # en, fr or es
prompts_dir=  # your copy: a folder with the WAV files and core-sounds-LANGUAGE.txt, as either source has them
. "$(dirname "${BASH_SOURCE[0]}")/parse_options.sh"

die() {
  echo "download_prompts.sh: $*" >&2
  exit 2
}
note() { echo "download_prompts.sh: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

[[ $# -eq 1 && -n $1 ]] || die "give one folder to fetch into; --help shows how."
target=${1%/}
case $language in # the sums of Debian's two packages: sounds, text
  en) package_sums=(2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d
                    973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50) ;;
  fr) package_sums=(8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e
                    04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056) ;;
  es) package_sums=(9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903
                    9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74) ;;
  *) die "--language $language: there are prompts in en, fr and es." ;;
esac
release=1.6.1
packages=("asterisk-core-sounds-$language-wav" "asterisk-core-sounds-$language")
tarball=https://downloads.asterisk.org/pub/telephony/sounds/releases/${packages[0]}-$release.tar.gz
text_name=core-sounds-$language.txt
sums=$(cd "$(dirname "${BASH_SOURCE[0]}")/../recipes/prompts/conf" && pwd)/$language/files.sha256
[[ -r $sums ]] || die "$sums is missing; check the repository out again."
if has sha256sum; then sha256=(sha256sum); elif has shasum; then sha256=(shasum -a 256); else
  die "neither sha256sum nor shasum is here to check files with; install coreutils."
fi

# Names of the release's files that folder $1 lacks or has otherwise, one a line.
differing() {
  (cd "$1" && "${sha256[@]}" -c "$sums" 2>/dev/null || true) | sed -n 's/: FAILED.*$//p'
}
first() { sed -n 1p; } # reads to the end: what writes to `head -n 1` may die of SIGPIPE, and pipefail ends the script
few() { # the lines of $1: how many, and the first five
  awk 'NR <= 5 { list = list (NR > 1 ? ", " : "") $0 } END { print NR " (" list (NR > 5 ? ", ..." : "") ")" }' <<<"$1"
}

if [[ -z $prompts_dir && -d $target && -z $(differing "$target") ]]; then
  echo "$target: the prompts are there already, and right."
  exit 0
fi
if [[ -d $target ]]; then # it will be replaced, so it must be ours
  foreign=$(find "$target" -mindepth 1 -maxdepth 1 ! -name sounds ! -name "$text_name" | first)
  [[ -z $foreign ]] || die "$target holds other things too ($foreign); give a folder of its own to fetch into."
elif [[ -e $target ]]; then
  die "$target is not a folder; give a folder to fetch into."
fi

mkdir -p "$(dirname "$target")" || die "$(dirname "$target") cannot be made; give another folder."
temporary=$(cd "$(dirname "$target")" && pwd)/.$(basename "$target").tmp # beside the target: the last step is a rename
rm -rf "$temporary"
mkdir "$temporary" || die "$(dirname "$target") cannot be written to; give another folder."
trap 'rm -rf "$temporary"' EXIT
source_dir=$temporary/source
mkdir "$source_dir"

package_known() { apt-cache show "${packages[0]}=$release-1" >/dev/null 2>&1; }

fetch_packages() {
  has apt-get && has apt-cache && has dpkg || return 1
  if ! package_known; then
    if [[ $EUID -eq 0 ]]; then
      note "apt does not know ${packages[0]} $release-1; running apt-get update"
      apt-get update >"$temporary/log" 2>&1 || note "apt-get update: $(tail -n 1 "$temporary/log")"
    elif ! apt-cache show bash >/dev/null 2>&1; then
      die "apt's package lists are empty; run: sudo apt-get update"
    fi
    package_known || return 1
  fi
  mkdir "$temporary/debs"
  if ! (cd "$temporary/debs" && apt-get download "${packages[@]/%/=$release-1}") >"$temporary/log" 2>&1; then
    note "apt-get download: $(tail -n 1 "$temporary/log")"
    return 1
  fi
  (cd "$temporary/debs" && "${sha256[@]}" -c - < <(
    for k in 0 1; do echo "${package_sums[k]}  ${packages[k]}_$release-1_all.deb"; done
  )) >"$temporary/log" 2>&1 ||
    die "Debian's packages are not those whose sums are pinned here ($(grep -m 1 FAILED "$temporary/log")); try again."
  for package in "$temporary"/debs/*.deb; do
    dpkg -x "$package" "$source_dir" || die "$(basename "$package") cannot be unpacked; is the disk full?"
  done
}

fetch_tarball() {
  local archive=$temporary/prompts.tar.gz
  if has curl; then
    curl -fsSL --proto '=https' --retry 2 --connect-timeout 20 -o "$archive" "$tarball" || return 1
  elif has wget; then
    wget -q --https-only --tries 2 --timeout 20 -O "$archive" "$tarball" || return 1
  else
    die "there is neither apt-get nor curl nor wget; install curl, or give a copy with --prompts-dir."
  fi
  unpack "$archive"
}

# Unpacks plain files and folders that stay inside $source_dir; anything else in the archive is refused.
unpack() {
  tar -tzf "$1" >"$temporary/names" 2>/dev/null && tar -tvzf "$1" >"$temporary/kinds" 2>/dev/null ||
    die "$tarball is damaged; try again."
  if grep -q -E '^/|(^|/)\.\.(/|$)' "$temporary/names" || grep -q -v '^[-d]' "$temporary/kinds"; then
    die "$tarball holds links, or files that would land outside its folder; it is not the release and was not unpacked."
  fi
  tar -xzf "$1" -C "$source_dir" --no-same-owner || die "$tarball cannot be unpacked; is the disk full?"
}

# Copies WAV files and transcripts from folder $1, in whichever layout, into $temporary/new.
assemble() {
  local sounds text
  if [[ -d $1/sounds ]]; then
    sounds=$1/sounds
  else # in whichever folder Debian or the makers put them
    sounds=$(find "$1" -name '*.wav' -path '*digits/*' | LC_ALL=C sort | first)
    [[ -n $sounds ]] || die "$1: the prompts are not there (no digits/*.wav); give the folder that holds them."
    sounds=$(dirname "$(dirname "$sounds")")
  fi
  text=$(find "$1" -name "$text_name" -o -name "$text_name.gz" | LC_ALL=C sort | first)
  [[ -n $text ]] || die "$1: $text_name (or .gz) is not there; put it beside the sounds."
  mkdir -p "$temporary/new/sounds"
  (cd "$sounds" && find . -name '*.wav' -print0 | tar -cf - --null -T -) | tar -xf - -C "$temporary/new/sounds" ||
    die "$target cannot be written; is the disk full?"
  if [[ $text == *.gz ]]; then gzip -dc "$text"; else cat "$text"; fi >"$temporary/new/$text_name" ||
    die "$text cannot be read; is it damaged?"
}

if [[ -n $prompts_dir ]]; then
  [[ -d $prompts_dir ]] || die "--prompts-dir $prompts_dir: there is no such folder."
  assemble "$prompts_dir"
  if [[ -d $target ]] && diff -rq "$temporary/new" "$target" >/dev/null; then
    echo "$target: the prompts of $prompts_dir are there already."
    exit 0
  fi
  wrong=$(differing "$temporary/new")
  # not an error: whether a file can be used is for `asr-kd prepare` to say, which can also leave it out
  [[ -z $wrong ]] || note "warning: $prompts_dir differs from release $release in $(few "$wrong"); numbers will not compare."
else
  if ! fetch_packages; then
    note "fetching the makers' tarball: $tarball"
    fetch_tarball ||
      die "the prompts could be fetched neither from Debian's packages nor from $tarball; give a copy with --prompts-dir."
  fi
  assemble "$source_dir"
  wrong=$(differing "$temporary/new")
  [[ -z $wrong ]] || die "what was fetched is not release $release: files differ from $sums: $(few "$wrong"); try again."
fi

if [[ -d $target ]]; then
  rm -rf "$temporary/old"
  mv "$target" "$temporary/old"
fi
mv "$temporary/new" "$target"
echo "$target: $(find "$target/sounds" -name '*.wav' | wc -l | tr -d ' ') prompts and their transcripts."
