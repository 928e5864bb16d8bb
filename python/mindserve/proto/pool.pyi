from typing import Any, Final

from google.protobuf.descriptor_pool import DescriptorPool

POOL: Final[DescriptorPool]

# A class; typed so that stubs can say more.
def message_class(full_name: str) -> Any: ...
