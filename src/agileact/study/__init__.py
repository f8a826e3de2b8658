"""Run and store trials: what a trial is, where its result is kept, how it is run."""
