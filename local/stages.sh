# Stages 2 to 8, which are the same for every corpus. To be sourced by bash after local/log.sh: needs $recipe (--config
# and --work-dir), $nj and $decoder ('': the commands' defaults) and, where the recipe has them, $mnist and $second_pass
# (--rescore-lm FILE ...).

if stage 2; then
  log "Stage 2: compute features"
  asr-kd features "${recipe[@]}" ${nj:+--nj "$nj"}
fi

if stage 3; then
  log "Stage 3: align every frame to a senone"
  asr-kd align "${recipe[@]}" ${nj:+--nj "$nj"}
fi

if stage 4; then
  log "Stage 4: train the teachers"
  asr-kd train "${recipe[@]}" --teachers ${nj:+--nj "$nj"}
fi

if stage 5; then
  log "Stage 5: compute soft targets"
  asr-kd soft-targets "${recipe[@]}" ${nj:+--nj "$nj"}
fi

if stage 6; then
  log "Stage 6: train all other systems, direct and distilled"
  asr-kd train "${recipe[@]}" ${nj:+--nj "$nj"}
fi

if stage 7; then
  log "Stage 7: decode the scored sets"
  asr-kd decode "${recipe[@]}" ${decoder:+--decoder "$decoder"} ${nj:+--nj "$nj"} ${second_pass[@]+"${second_pass[@]}"}
fi

if stage 8; then
  log "Stage 8: report"
  asr-kd report "${recipe[@]}" ${mnist:+--mnist "$mnist"}
fi
