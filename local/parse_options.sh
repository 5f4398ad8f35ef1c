# Command-line options for a recipe, in the spirit of Kaldi's script of this name. To be sourced by bash:
#
#   help_message="Usage: run.sh [options]"
#   stage=0         # first stage to run
#   skip_bad=false  # leave out what cannot be used
#   . local/parse_options.sh
#
# An option is a lower-case variable given a value at the start of a line above the `.`; the comment after it is its
# help. `--some-option value` and `--some-option=value` set some_option. An option whose default is true or false takes
# nothing else. Options end at the first word that is none, or at `--`; what follows is left in "$@".

_options_die() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# Prints "name<TAB>comment" for each option that the sourcing script declares.
_options_declared() {
  awk '
    /^[ \t]*(\.|source)[ \t].*parse_options\.sh/ { exit }
    match($0, /^[a-z][a-z0-9_]*=/) {
      name = substr($0, 1, RLENGTH - 1)
      if (name == "help_message" || seen[name]++) next
      comment = match($0, /[ \t]# /) ? substr($0, RSTART + RLENGTH) : ""
      print name "\t" comment
    }' "$1"
}

_options_help() {
  local name comment
  if [ -n "${help_message:-}" ]; then printf '%s\n' "$help_message"; fi
  printf '\nOptions, with their defaults:\n'
  while IFS=$'\t' read -r name comment; do
    printf '  --%-20s %s\n' "${name//_/-} ${!name:-\"\"}" "${comment:+ # $comment}"
  done <<<"$_options"
}

_options_set() { # name, as typed on the command line; value
  local name=${1//-/_}
  [[ $name =~ ^[a-z][a-z0-9_]*$ && $'\n'$_options == *$'\n'"$name"$'\t'* ]] ||
    _options_die "unknown option --$1; --help lists the options."
  if [[ ${!name} == true || ${!name} == false ]] && [[ $2 != true && $2 != false ]]; then
    _options_die "--$1 takes true or false, not '$2'."
  fi
  printf -v "$name" '%s' "$2"
}

# The script may have changed directory since it was called by a relative name.
_options_script=${BASH_SOURCE[1]}
if [[ ! -r $_options_script ]]; then _options_script=$(basename "$_options_script"); fi
[[ -r $_options_script ]] || _options_die "cannot find the text of ${BASH_SOURCE[1]} to read its options from."
_options=$(_options_declared "$_options_script")

while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h)
      _options_help
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --*=*)
      _options_set "$(_name=${1%%=*} && echo "${_name#--}")" "${1#*=}"
      shift
      ;;
    --*)
      [[ $# -ge 2 ]] || _options_die "option $1 needs a value."
      _options_set "${1#--}" "$2"
      shift 2
      ;;
    -?*) _options_die "unknown option $1; options begin with two dashes, and --help lists them." ;;
    *) break ;;
  esac
done
