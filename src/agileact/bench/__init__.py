"""Benchmarks of the operator and of whole training steps; ``agileact bench`` runs them."""
