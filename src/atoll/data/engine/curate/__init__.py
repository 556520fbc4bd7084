"""Curate: the steps of a curation run, from its plan to its manifest."""
