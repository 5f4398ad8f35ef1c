"""Lexicon, language model and tree -> a decoding graph; log-likelihoods -> words, by any of several searches."""
