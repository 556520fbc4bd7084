"""Questions: pairs of question and answer derived from documents, or taken from conversations."""
