"""Puts the model of the installed `silero-vad` package into the servable.

It is 2 MB and comes with the package, so it isn't kept here twice. The package's code isn't used: that needs torch.
"""

import importlib.util
import os
import pathlib

SERVABLE = pathlib.Path(__file__).resolve().parent / "speech_detector"


def model_file() -> pathlib.Path:
    """The model inside the package."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this example needs the package that holds the model: pip install --no-deps silero-vad")
    return pathlib.Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.onnx"


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes <servable>/1/silero_vad.onnx, unless it is that of this package."""
    content = model_file().read_bytes()
    target = servable / "1" / "silero_vad.onnx"
    if target.exists() and target.read_bytes() == content:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: the file appears whole or not at all.
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(target)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
