"""Starts, watches, restarts and ends worker processes."""

from mindserve.supervisor.job import StartJob, WorkerSpec
from mindserve.supervisor.supervisor import Supervisor, WorkerState

__all__ = ["StartJob", "Supervisor", "WorkerSpec", "WorkerState"]
