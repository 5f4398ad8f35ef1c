"""Recognising speech with a finished model: whole recordings, or speech as it comes."""
