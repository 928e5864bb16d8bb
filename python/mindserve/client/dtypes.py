"""The numpy types that travel as numbers, and their places in the DataType enum of the messages."""

import numpy as np

MS_STRING = 13
MS_BYTES = 14

# By numpy's type; the bytes on the wire are little-endian.
NUMERIC: dict[type[np.generic], int] = {
    np.bool_: 1,
    np.int8: 2,
    np.uint8: 3,
    np.int16: 4,
    np.uint16: 5,
    np.int32: 6,
    np.uint32: 7,
    np.int64: 8,
    np.uint64: 9,
    np.float16: 10,
    np.float32: 11,
    np.float64: 12,
}

NAMES = ", ".join(np.dtype(kind).name for kind in NUMERIC)
