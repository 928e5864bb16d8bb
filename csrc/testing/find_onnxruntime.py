"""Print the path of the installed ONNX Runtime's shared library, or nothing."""

import importlib.util
from pathlib import Path

spec = importlib.util.find_spec("onnxruntime")
if spec is not None and spec.origin is not None:
    for library in sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.so.*")):
        print(library)
        break
