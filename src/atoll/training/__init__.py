"""Training: recipes, runs, evaluations and the gate, with the engine that changes weights in a process of its own."""
