"""Language: which one a text is in, and which script of Chinese."""
