"""One trial: its set-up, its steps, its measurements."""
