"""Which workers a servable's start asks for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from mindserve import config, logs
from mindserve.config import ServableStartConfig
from mindserve.control import WorkerParameters
from mindserve.supervisor import WorkerSpec

# Seconds for the handshake of a worker that waits for no other: the master may be busy with many on few cores.
_HANDSHAKE_TIMEOUT = 60.0

Key = tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class Started:
    """What a start asks for, and the version that it stands for.

    Attributes:
        config: what was asked.
        version: the version directory; for a servable without one, what it counts as.
        directory: the current one at the time, where the workers' logs go.
    """

    config: ServableStartConfig
    version: int
    directory: Path

    def worker_keys(self) -> list[Key]:
        """Of its workers, as in `WorkerSpec.key`."""
        return [(self.config.servable_name, self.version, device_id) for device_id in self.config.device_ids]


def resolve(item: ServableStartConfig) -> Started:
    """With the version that the config stands for now.

    Raises:
        ConfigError: a directory or a file is missing.
    """
    config.check_servable_directory(item)
    # A servable of functions alone needs no version directory; the worker knows whether it has models.
    version = config.find_version(item.servable_directory, item.servable_name, item.version_number)
    return Started(item, version or item.version_number or 1, Path.cwd())


def make_specs(wanted: Sequence[Started], running: int, internal_address: str = "") -> list[WorkerSpec]:
    """One worker for each device of each config, each once.

    Args:
        wanted: what to start.
        running: workers that run on this host already; they share the cores.
        internal_address: where the gateway answers its own workers; empty: nowhere.
    """
    workers: dict[Key, Started] = {}
    for each in wanted:
        for key in each.worker_keys():
            workers.setdefault(key, each)
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, len(workers) + running))
    longest = max((each.config.start_timeout for each in workers.values()), default=0.0)
    return [
        WorkerSpec(
            WorkerParameters(
                servable_directory=item.servable_directory,
                servable_name=name,
                version=version,
                version_asked=item.version_number,
                device_id=device_id,
                device_type=item.device_type,
                intra_op_threads=threads,
                max_batch_size=item.max_batch_size,
                max_queue_delay_us=item.max_queue_delay_us,
                handshake_timeout=longest + _HANDSHAKE_TIMEOUT,
                refuse_late=item.refuse_late,
                handler_threads=item.handler_threads,
                send_tracebacks=item.send_tracebacks,
                internal_address=internal_address,
            ),
            logs.worker_log_path(each.directory, name, device_id, version),
            item.start_timeout,
            item.heartbeat_timeout,
        )
        for (name, version, device_id), each in workers.items()
        for item in (each.config,)
    ]
