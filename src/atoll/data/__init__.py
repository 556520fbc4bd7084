"""Data: recipes, curation engines, datasets and their lineage."""
