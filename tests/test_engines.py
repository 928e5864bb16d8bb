import importlib
import importlib.util
import logging
import pathlib
import shutil
import subprocess
import sys

import pytest

from mindserve import engines
from mindserve.errors import StartError

LIBRARY = "libonnxruntime.so.1.31.1"
CUDA = "libonnxruntime_providers_cuda.so"
CANN = "libonnxruntime_providers_cann.so"


class Site:
    """A directory of packages that shadows the real ones."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.capi = path / "onnxruntime" / "capi"

    def install(self, package: str, version: str, *libraries: str, cuda_version: str | None = None) -> None:
        self.capi.mkdir(parents=True, exist_ok=True)
        (self.path / "onnxruntime" / "__init__.py").write_text("raise AssertionError('onnxruntime was imported')\n")
        info = f"package_name = '{package}'\n__version__ = '{version}'\n"
        if cuda_version is not None:
            info += f"cuda_version = '{cuda_version}'\n"
        (self.capi / "build_and_package_info.py").write_text(info)
        for library in libraries:
            (self.capi / library).touch()
        metadata = self.path / f"{package.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The only place with packages, but for the standard library's."""
    path = tmp_path / "site-packages"
    path.mkdir()
    standard = [entry for entry in sys.path if "site-packages" not in entry and "dist-packages" not in entry]
    monkeypatch.setattr(sys, "path", [str(path), *standard])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    importlib.invalidate_caches()
    return Site(path)


class FakeRuntime:
    """Stands in for the native runtime: says what the library would."""

    def __init__(self, *device_types: str, error: str = "") -> None:
        self.device_types = list(device_types)
        self.error = error
        self.opened: list[str] = []

    def open_onnxruntime(self, library: str) -> list[str]:
        self.opened.append(library)
        if self.error:
            raise RuntimeError(self.error)
        return self.device_types


def engine(*device_types: str) -> engines.OnnxRuntime:
    return engines.OnnxRuntime("onnxruntime-gpu", "1.31.1", pathlib.Path("/x") / LIBRARY, device_types)


# -- Finding -----------------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(site: Site) -> None:
    assert engines.find_onnxruntime() is None


def test_a_directory_of_that_name_is_no_package(site: Site) -> None:
    site.capi.mkdir(parents=True)
    assert engines.find_onnxruntime() is None


def test_cpu_package(site: Site) -> None:
    site.install("onnxruntime", "1.31.1", LIBRARY)
    found = engines.find_onnxruntime()
    assert found == engines.OnnxRuntime("onnxruntime", "1.31.1", site.capi / LIBRARY, ("CPU",))
    assert "onnxruntime" not in sys.modules


def test_gpu_package(site: Site) -> None:
    site.install("onnxruntime-gpu", "1.31.1", LIBRARY, CUDA, cuda_version="13.0")
    found = engines.find_onnxruntime()
    assert found == engines.OnnxRuntime("onnxruntime-gpu", "1.31.1", site.capi / LIBRARY, ("GPU", "CPU"), "13.0")


def test_ascend_package(site: Site) -> None:
    site.install("onnxruntime-cann", "1.24.4", "libonnxruntime.so.1.24.4", CANN)
    found = engines.find_onnxruntime()
    assert found is not None
    assert (found.package, found.version, found.device_types) == ("onnxruntime-cann", "1.24.4", ("Ascend", "CPU"))


def test_the_package_is_known_without_its_own_words(site: Site) -> None:
    site.install("onnxruntime-gpu", "1.31.1", LIBRARY, CUDA)
    (site.capi / "build_and_package_info.py").write_text("this is no Python (")
    found = engines.find_onnxruntime()
    assert found is not None
    assert (found.package, found.version, found.cuda_version) == ("onnxruntime-gpu", "1.31.1", None)


def test_of_several_libraries_the_one_of_the_version_is_taken(site: Site) -> None:
    site.install("onnxruntime", "1.24.4", "libonnxruntime.so.1.31.1", "libonnxruntime.so.1.24.4")
    found = engines.find_onnxruntime()
    assert found is not None
    assert found.library.name == "libonnxruntime.so.1.24.4"


def test_else_the_newest_library_is_taken(site: Site) -> None:
    site.install("onnxruntime", "1.31.2.dev0", "libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.2")
    found = engines.find_onnxruntime()
    assert found is not None
    assert found.library.name == "libonnxruntime.so.1.31.2"


def test_packages_over_each_other_are_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("onnxruntime-gpu", "1.31.1", LIBRARY, CUDA, cuda_version="13.0")
    site.install("onnxruntime", "1.31.1", LIBRARY)
    with caplog.at_level(logging.WARNING, "mindserve"):
        found = engines.find_onnxruntime()
    assert found is not None
    assert found.package == "onnxruntime"
    assert "onnxruntime, onnxruntime-gpu are all installed" in caplog.text


def test_a_package_without_a_shared_library_is_too_old(site: Site) -> None:
    site.install("onnxruntime", "1.17.0", "onnxruntime_pybind11_state.so")
    with pytest.raises(StartError, match=r"onnxruntime 1\.17\.0 in .*`pip install --upgrade onnxruntime`"):
        engines.find_onnxruntime()


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no onnxruntime package is installed")
def test_the_installed_package() -> None:
    found = engines.find_onnxruntime()
    assert found is not None
    assert found.library.is_file()
    assert found.package.startswith("onnxruntime")
    assert found.device_types[-1] == "CPU"


# -- Devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ([], {"CPU"}),
        (["dev/null", "dev/nvidiactl", "dev/davinci_manager"], {"CPU"}),
        (["dev/nvidia0"], {"CPU", "GPU"}),
        (["dev/nvidia12"], {"CPU", "GPU"}),
        (["proc/driver/nvidia/version"], {"CPU", "GPU"}),
        (["dev/dxg"], {"CPU", "GPU"}),
        (["dev/davinci3"], {"CPU", "Ascend"}),
        (["dev/davinci0", "dev/nvidia0"], {"CPU", "GPU", "Ascend"}),
    ],
)
def test_devices_are_seen_by_their_files(tmp_path: pathlib.Path, files: list[str], there: set[str]) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert engines.present_devices(tmp_path) == there


@pytest.mark.parametrize(
    ("built_for", "present", "chosen"),
    [
        (["CPU"], ["CPU", "GPU", "Ascend"], "CPU"),
        (["GPU", "CPU"], ["CPU", "GPU"], "GPU"),
        (["GPU", "CPU"], ["CPU", "Ascend"], "CPU"),
        (["Ascend", "CPU"], ["CPU", "GPU", "Ascend"], "Ascend"),
        (["Ascend", "GPU", "CPU"], ["CPU", "GPU", "Ascend"], "Ascend"),
    ],
)
def test_none_is_the_best_that_is_there(built_for: list[str], present: list[str], chosen: str) -> None:
    assert engines.choose_device(engine(*built_for), None, present, servable_name="add") == chosen


def test_what_is_asked_for_and_there_is_taken() -> None:
    everything = ("Ascend", "GPU", "CPU")
    for device_type in everything:
        assert engines.choose_device(engine(*everything), device_type, everything, servable_name="a") == device_type


@pytest.mark.parametrize(
    ("device_type", "package"), [("GPU", "onnxruntime-gpu[cuda,cudnn]"), ("Ascend", "onnxruntime-cann")]
)
def test_a_device_type_that_is_not_there(device_type: str, package: str) -> None:
    text = f"The device type '{device_type}' of servable name add is inconsistent with current running environment: "
    for built_for, why in (("CPU",), "is a build for CPU"), ((device_type, "CPU"), "this machine shows no device"):
        with pytest.raises(StartError) as raised:
            engines.choose_device(engine(*built_for), device_type, ["CPU"], servable_name="add")
        assert str(raised.value).startswith(text)
        assert why in str(raised.value)
        assert package in str(raised.value)


# -- CUDA's libraries --------------------------------------------------------------------------------------------------

CUDA_12 = {
    "cuda_runtime": "libcudart.so.12",
    "cuda_nvrtc": "libnvrtc.so.12",
    "cublas": "libcublas.so.12",
    "curand": "libcurand.so.10",
    "cufft": "libcufft.so.11",
    "cudnn": "libcudnn.so.9",
}


def test_cuda_libraries_of_nvidias_packages_are_loaded(tmp_path: pathlib.Path) -> None:
    """In a process of its own, with copies of some shared library in their place."""
    import _ctypes

    for package, library in CUDA_12.items():
        (tmp_path / "nvidia" / package / "lib").mkdir(parents=True)
        shutil.copy(_ctypes.__file__, tmp_path / "nvidia" / package / "lib" / library)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from mindserve import engines\n"
        "print(engines.preload_cuda('12.8'))\n"
        "print(open('/proc/self/maps').read())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    missing, _, maps = printed.partition("\n")
    assert missing == "['libcublasLt.so.12']"
    for package, library in CUDA_12.items():
        assert str(tmp_path / "nvidia" / package / "lib" / library) in maps


def test_cuda_13_has_one_directory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.path / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    (site.path / "nvidia" / "cu13" / "lib" / "libcufft.so.12").touch()
    tried: list[str] = []
    monkeypatch.setattr(engines, "_load", lambda path: tried.append(path) or "cufft" in path)
    missing = engines.preload_cuda("13.0")
    assert str(site.path / "nvidia" / "cu13" / "lib" / "libcufft.so.12") in tried
    assert missing == [
        "libcudart.so.13",
        "libnvrtc.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libcudnn.so.9",
    ]


def test_without_nvidias_packages_everything_is_missing(site: Site) -> None:
    assert "libcudart.so.99" in engines.preload_cuda("99.0")
    assert engines.preload_cuda("unknown") == []


# -- Opening -----------------------------------------------------------------------------------------------------------


def test_open_engine_loads_what_is_installed(site: Site) -> None:
    site.install("onnxruntime", "1.31.1", LIBRARY)
    runtime = FakeRuntime("CPU")
    assert engines.open_engine(runtime, None, servable_name="add") == "CPU"
    assert runtime.opened == [str(site.capi / LIBRARY)]


def test_open_engine_without_an_engine_names_what_to_install(site: Site) -> None:
    with pytest.raises(StartError, match=r"pip install mindserve\[cpu\]"):
        engines.open_engine(FakeRuntime("CPU"), None, servable_name="add")


def test_open_engine_hands_on_why_the_library_is_refused(site: Site) -> None:
    site.install("onnxruntime", "1.31.1", LIBRARY)
    with pytest.raises(StartError, match="servable name add can't be loaded: file too short"):
        engines.open_engine(FakeRuntime(error="file too short"), "CPU", servable_name="add")


def test_open_engine_prepares_the_gpu(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("onnxruntime-gpu", "1.31.1", LIBRARY, CUDA, cuda_version="99.0")
    monkeypatch.setattr(engines, "present_devices", lambda: frozenset({"CPU", "GPU"}))
    with caplog.at_level(logging.WARNING, "mindserve"):
        assert engines.open_engine(FakeRuntime("GPU", "CPU"), None, servable_name="add") == "GPU"
    assert "libcudart.so.99" in caplog.text
    with pytest.raises(StartError, match="The device type 'GPU' of servable name add is inconsistent"):
        engines.open_engine(FakeRuntime("CPU"), "GPU", servable_name="add")
