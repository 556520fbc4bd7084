"""Versions: what is done with datasets that are there: describe, compare, import, erase."""
