"""Judge a tuned model against its base: `python -m atoll.training.engine.evaluate` in a task directory.

Both are measured in one process on the same rows: the same weights with and without the adapter, which is read from
the very file that is served. The verdict is the gate's.
"""

from __future__ import annotations

from typing import Any

from atoll.core import task
from atoll.training.engine.inputs import parse_evaluate
from atoll.training.engine.process import Stop, settle
from atoll.training.gate import decide, loss_drop


def evaluate(task_input: dict[str, Any]) -> dict[str, Any]:
    """Metrics of both, the fraction of the base's loss that is gone, and the verdict where a gate is given."""
    Stop()
    wanted = parse_evaluate(task_input)
    settle()
    from atoll.training.engine.judge import measured  # loads torch, which reads what settle has set

    metrics = measured(wanted)
    result: dict[str, Any] = {"metrics": metrics, "drop": loss_drop(metrics)}
    if wanted.gate is not None:
        decision = decide(metrics, wanted.gate)
        result["gate"] = {"passed": decision.passed, "reason": decision.reason}
    return result


if __name__ == "__main__":
    task.run(evaluate)
