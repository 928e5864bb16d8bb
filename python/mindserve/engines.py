"""Finds the installed inference engine and the device that models run on, without importing the engine's package.

ONNX Runtime comes in one of three packages that share the name ``onnxruntime`` and a directory: for CPU, for CUDA, for
Ascend. Its shared library is opened by the native core; here it is only found, and told apart by the device libraries
that lie beside it.
"""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mindserve.errors import StartError

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-cann")
# Best device first: what None chooses from, each with the library that a build for it has.
_DEVICE_LIBRARIES = {"Ascend": "libonnxruntime_providers_cann.so", "GPU": "libonnxruntime_providers_cuda.so"}
_CPU = "CPU"
_NEEDS = {
    "Ascend": (
        "Ascend needs its driver, the CANN toolkit, and `pip install mindserve[ascend]` (onnxruntime-cann) in place of "
        "any other onnxruntime package"
    ),
    "GPU": (
        "GPU needs an NVIDIA driver, and `pip install mindserve[gpu]` (onnxruntime-gpu[cuda,cudnn]) in place of any "
        "other onnxruntime package"
    ),
}

_log = logging.getLogger("mindserve.engines")


class Runtime(Protocol):
    """What this module needs of the native runtime."""

    def open_onnxruntime(self, library: str) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class OnnxRuntime:
    """An installed ONNX Runtime.

    Attributes:
        package: the distribution whose files these are, "onnxruntime-gpu".
        version: its version, "1.31.1".
        library: the shared library.
        device_types: what it was built for, best first: of "Ascend", "GPU", "CPU".
        cuda_version: the CUDA that it was built with, "13.0"; None where it says nothing of one.
    """

    package: str
    version: str
    library: Path
    device_types: tuple[str, ...]
    cuda_version: str | None = None


def find_onnxruntime() -> OnnxRuntime | None:
    """What is installed where this Python imports from; None if nothing is.

    Raises:
        StartError: a package is there, but so old that it has no shared library.
    """
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "capi"
    built = _read_assignments(directory / "build_and_package_info.py")
    installed = _installed_packages()
    package = built.get("package_name") or next(iter(installed), "onnxruntime")
    version = built.get("__version__") or installed.get(package, "of unknown version")
    if len(installed) > 1:
        _log.warning(
            "the packages %s are all installed, though their files overwrite each other: uninstall them all, then "
            "install one; in use is %s %s",
            ", ".join(installed),
            package,
            version,
        )
    library = _library(directory, version)
    if library is None:
        raise StartError(
            f"{package} {version} in '{directory}' has no shared library libonnxruntime.so: install a newer one with "
            f"`pip install --upgrade {package}`"
        )
    devices = [device for device, name in _DEVICE_LIBRARIES.items() if (directory / name).is_file()]
    return OnnxRuntime(package, version, library, (*devices, _CPU), built.get("cuda_version") or None)


def present_devices(root: Path = Path("/")) -> frozenset[str]:
    """The device types that this machine shows, by their drivers' files under ``root``; the CPU always."""
    there = {_CPU}
    if any(root.glob("dev/davinci[0-9]*")):
        there.add("Ascend")
    # dxg is how WSL 2 shows a GPU.
    nodes = (*root.glob("dev/nvidia[0-9]*"), root / "proc/driver/nvidia/version", root / "dev/dxg")
    if any(node.exists() for node in nodes):
        there.add("GPU")
    return frozenset(there)


def choose_device(engine: OnnxRuntime, device_type: str | None, present: Iterable[str], *, servable_name: str) -> str:
    """The device type to run a servable's models on.

    Args:
        engine: what is installed.
        device_type: "Ascend", "GPU" or "CPU"; None for the best that is there.
        present: what the machine has.
        servable_name: for the error.

    Raises:
        StartError: the device type is not there, or the engine was not built for it.
    """
    present = frozenset(present)
    if device_type is None:
        return next(device for device in engine.device_types if device in present)
    if device_type not in engine.device_types:
        raise _inconsistent(
            device_type,
            servable_name,
            f"the installed {engine.package} {engine.version} is a build for {' and '.join(engine.device_types)}",
        )
    if device_type not in present:
        raise _inconsistent(device_type, servable_name, "this machine shows no device of it, or not to this process")
    return device_type


def preload_cuda(cuda_version: str) -> list[str]:
    """Loads the CUDA and cuDNN libraries, so that ONNX Runtime's provider finds them in this process.

    They are looked for in NVIDIA's packages (``site-packages/nvidia/*/lib``), then where the system's loader looks.

    Args:
        cuda_version: the version that ONNX Runtime was built with, "13.0".

    Returns:
        The names of those that can't be loaded.
    """
    directories = [
        lib for directory in _nvidia_directories() for lib in sorted(directory.glob("*/lib")) if lib.is_dir()
    ]
    missing = []
    for name in _cuda_libraries(cuda_version):
        candidates = [str(directory / name) for directory in directories if (directory / name).is_file()]
        if not any(_load(path) for path in (*candidates, name)):
            missing.append(name)
    return missing


def open_engine(runtime: Runtime, device_type: str | None, *, servable_name: str) -> str:
    """Loads ONNX Runtime into ``runtime``.

    Args:
        runtime: the native runtime, new.
        device_type: "Ascend", "GPU" or "CPU"; None for the best that is there.
        servable_name: for errors.

    Returns:
        The device type to load models for.

    Raises:
        StartError: there is no engine, or it has not the device type.
    """
    engine = find_onnxruntime()
    if engine is None:
        raise StartError(
            "No inference engine is installed: models of format ONNX need ONNX Runtime. Install it with "
            "`pip install mindserve[cpu]`, for an NVIDIA GPU with `pip install mindserve[gpu]`, for Ascend with "
            "`pip install mindserve[ascend]`"
        )
    chosen = choose_device(engine, device_type, present_devices(), servable_name=servable_name)
    if chosen == "GPU" and engine.cuda_version is not None:
        missing = preload_cuda(engine.cuda_version)
        if missing:
            _log.warning("CUDA %s libraries not found: %s; %s", engine.cuda_version, ", ".join(missing), _NEEDS["GPU"])
    try:
        built_for = runtime.open_onnxruntime(str(engine.library))
    except RuntimeError as error:
        raise StartError(f"The inference engine of servable name {servable_name} can't be loaded: {error}") from error
    if chosen not in built_for:
        raise _inconsistent(chosen, servable_name, f"{engine.library} is a build for {' and '.join(built_for)}")
    _log.info("%s %s runs on %s", engine.package, engine.version, chosen)
    return chosen


def _inconsistent(device_type: str, servable_name: str, why: str) -> StartError:
    needs = _NEEDS.get(device_type, "")
    return StartError(
        f"The device type '{device_type}' of servable name {servable_name} is inconsistent with current running "
        f"environment: {why}" + (f". {needs}" if needs else "")
    )


def _read_assignments(path: Path) -> dict[str, str]:
    """The strings that a Python file assigns to names, read without running it; none if it can't be read."""
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return {}
    return {
        target.id: statement.value.value
        for statement in statements
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _installed_packages() -> dict[str, str]:
    """Versions of the packages of ONNX Runtime that are installed, by name."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _library(directory: Path, version: str) -> Path | None:
    """The shared library of this version: packages installed over each other leave several behind."""
    libraries = sorted(directory.glob("libonnxruntime.so*"), key=lambda path: _numbers(path.name))
    exact = directory / f"libonnxruntime.so.{version}"
    return exact if exact in libraries else (libraries[-1] if libraries else None)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _nvidia_directories() -> list[Path]:
    """Where NVIDIA's packages put their libraries; they share the name ``nvidia``, perhaps in several places."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _cuda_libraries(cuda_version: str) -> list[str]:
    """What ONNX Runtime's CUDA provider and cuDNN need, in an order in which each finds what it needs itself."""
    numbers = _numbers(cuda_version)
    if not numbers:
        return []
    major = numbers[0]
    return [
        f"libcudart.so.{major}",
        f"libnvrtc.so.{major}",
        f"libcublasLt.so.{major}",
        f"libcublas.so.{major}",
        "libcurand.so.10",
        f"libcufft.so.{major - 1}",
        f"libcudnn.so.{9 if major >= 12 else 8}",
    ]


def _load(path: str) -> bool:
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        _log.debug("%s: %s", path, error)
        return False
    return True
