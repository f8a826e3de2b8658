"""Many trials: which come next, who runs them, where their results are kept."""
