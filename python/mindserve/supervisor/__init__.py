"""Starts, watches, restarts and ends worker processes."""

from mindserve.supervisor.job import StartJob, WorkerSpec
from mindserve.supervisor.process import module_command
from mindserve.supervisor.slot import WorkerState
from mindserve.supervisor.supervisor import Supervisor

__all__ = ["StartJob", "Supervisor", "WorkerSpec", "WorkerState", "module_command"]
