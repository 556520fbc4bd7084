"""Machines and what runs on them: pools, nodes, the scheduler, and the agents and runtimes that hold processes."""
