"""`asr-kd serve`: a page on which one speaks, or drops a recording, and sees the words appear."""
