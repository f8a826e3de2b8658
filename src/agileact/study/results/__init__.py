"""From the trials of a study to what can be said of it."""
