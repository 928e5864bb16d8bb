"""`mindserve.register` under the name by which servables import it: ``from mindserve.server import register``."""

from mindserve.register import *  # noqa: F403
from mindserve.register import __all__ as __all__
