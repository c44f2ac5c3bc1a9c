"""Where candidates train: one interface, in this process or in many."""

from deepmaker_jax.execute.inline import Inline
from deepmaker_jax.execute.processes import Processes
from deepmaker_jax.execute.unit import Executor, Outcome, Task, Unit

__all__ = ["Executor", "Inline", "Outcome", "Processes", "Task", "Unit"]
