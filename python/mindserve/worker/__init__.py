"""The worker process: one version of one servable on one device. Executed by the master as ``-m mindserve.worker``."""
