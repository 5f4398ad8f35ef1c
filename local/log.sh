# What a recipe's stages are written with. To be sourced by bash.

# Prints a line with the time, on standard error, where the commands log too.
log() {
  printf '%(%Y-%m-%d %H:%M:%S)T %s\n' -1 "$*" >&2
}

# `if stage 3; then ...`: whether $stage <= 3 <= $stop_stage.
stage() {
  [[ $stage -le $1 && $1 -le $stop_stage ]]
}
