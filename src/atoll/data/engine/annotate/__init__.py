"""Annotate: one pass over a batch of texts notes all that rules, duplicates and reports will ask of them."""
