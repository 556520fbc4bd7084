"""Labelling: the errands of a labelling task, each a process of its own that speaks to the platform by HTTP."""
