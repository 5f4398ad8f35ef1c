"""Speech and transcripts on disk -> utterances with audio and text, checked."""
