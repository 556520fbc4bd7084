"""Models: the library, its file formats, where models come from and whether they are safe to load."""
