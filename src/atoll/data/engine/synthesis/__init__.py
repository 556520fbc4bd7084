"""Synthesis: questions, answers and instructions a deployed model writes about documents, each held to its source."""
