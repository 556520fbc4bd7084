"""Fine-tune a base model: `python -m atoll.training.engine.main` in a task directory.

Goes on from the newest whole checkpoint under ATOLL_WORK, exactly as if it had never stopped. Told to stop, it keeps
its state and exits 143. A full disk is no fault of the input, so such a task may be tried again.
"""

from __future__ import annotations

from typing import Any

from atoll.core import task
from atoll.core.errors import ResourceExhausted, Unavailable
from atoll.training.engine.attempts import Diary
from atoll.training.engine.inputs import parse_train
from atoll.training.engine.process import Stop, Stopped, leave, settle


def train(task_input: dict[str, Any]) -> dict[str, Any]:
    """The result of the run `task_input` describes."""
    stop = Stop()
    wanted = parse_train(task_input)
    diary = Diary(task.work_dir() / "attempts.jsonl")
    settle()
    from atoll.training.engine.run import Run  # loads torch, which reads what settle has set

    try:
        return Run(wanted, diary, stop).train()
    except Stopped:
        leave()
    except ResourceExhausted as error:
        raise Unavailable(error.message, hint=error.hint) from error
    finally:
        diary.close()


if __name__ == "__main__":
    task.run(train)
