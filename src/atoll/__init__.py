"""Atoll: data to models, models to metered services, services to applications."""

__version__ = "0.1.0"
