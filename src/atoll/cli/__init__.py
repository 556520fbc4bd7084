"""The command line: every noun of the platform with the same verbs, and the few verbs of its own."""
