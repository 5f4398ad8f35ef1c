"""Lexicon, language model and tree -> a decoding graph; log-likelihoods -> words, with k2 or kaldi-decoder."""
