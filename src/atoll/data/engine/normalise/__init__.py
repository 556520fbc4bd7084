"""Normalise: one spelling for equal texts."""
