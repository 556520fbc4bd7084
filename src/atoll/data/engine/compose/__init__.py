"""Compose: which documents a dataset takes, how often, on which side, and as which tokens."""
