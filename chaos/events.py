"""What was done to the server and its clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Whose requests may be answered UNAVAILABLE for a fault: nobody's; those of methods that must not be executed again and
# streams, if the one worker that has died may have begun with them; the same if it had them, since it may not be over;
# every one of the servable.
Excuses = Literal["nothing", "begun", "unrepeatable", "everything"]


@dataclass(frozen=True)
class Fault:
    """One of them.

    Attributes:
        kind: such as "kill a worker".
        servable: that it befell; empty where it was none.
        detail: which of its sort.
        excuses: which refusals are proper while it lasts.
        began: seconds, as in the ledgers.
        ended: when all was as before.
        failed: what was not as it must be; empty.
    """

    kind: str
    servable: str
    detail: str
    excuses: Excuses
    began: float
    ended: float
    failed: str = ""

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended - self.began
