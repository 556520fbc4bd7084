"""Labelling: people, and models before them, say what things are; how far they agree; who decides where they do not.

`schema` what may be said, `values` what was said, `assignment` who gets what (pure), `agreement` how far (pure),
`tallies` what is counted for it, `store` the rows of it all, `resources` and `controllers` the kinds.
"""
