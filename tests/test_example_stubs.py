"""example/generate_stubs.py: the generated modules that the examples' servers make."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from example_process import EXAMPLE, load_script

PROTO = EXAMPLE / "ping" / "test_service.proto"
NAMES = ["test_service_pb2.py", "test_service_pb2_grpc.py"]


def test_modules_that_can_be_imported(tmp_path: pathlib.Path) -> None:
    proto = tmp_path / PROTO.name
    proto.write_bytes(PROTO.read_bytes())
    (tmp_path / "servable").mkdir()
    subprocess.run([sys.executable, EXAMPLE / "generate_stubs.py", proto], check=True)
    subprocess.run([sys.executable, EXAMPLE / "generate_stubs.py", proto, tmp_path / "servable"], check=True)
    assert sorted(path.name for path in tmp_path.glob("*.py")) == NAMES
    assert sorted(path.name for path in (tmp_path / "servable").iterdir()) == NAMES
    code = "import test_service_pb2_grpc as stubs; print(stubs.TestServiceServicer.Ping.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "Ping\n"


def test_what_is_right_is_not_touched_and_what_is_old_is_replaced(tmp_path: pathlib.Path) -> None:
    stubs = load_script(EXAMPLE / "generate_stubs.py")
    stubs.generate(PROTO, [tmp_path])
    right = (tmp_path / NAMES[0]).stat()
    (tmp_path / NAMES[1]).write_text("raise ImportError('made for another version')\n")
    stubs.generate(PROTO, [tmp_path])
    now = (tmp_path / NAMES[0]).stat()
    assert (now.st_ino, now.st_mtime_ns) == (right.st_ino, right.st_mtime_ns)
    assert "TestServiceServicer" in (tmp_path / NAMES[1]).read_text()


def test_without_the_compiler_what_is_there_is_taken(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubs = load_script(EXAMPLE / "generate_stubs.py")
    stubs.generate(PROTO, [tmp_path])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    stubs.generate(PROTO, [tmp_path])
    (tmp_path / NAMES[0]).unlink()
    with pytest.raises(SystemExit, match="pip install grpcio-tools"):
        stubs.generate(PROTO, [tmp_path])


def test_a_proto_file_that_is_wrong(tmp_path: pathlib.Path) -> None:
    (tmp_path / "wrong.proto").write_text("no proto")
    stubs = load_script(EXAMPLE / "generate_stubs.py")
    with pytest.raises(SystemExit, match=r"wrong\.proto could not be compiled"):
        stubs.generate(tmp_path / "wrong.proto", [tmp_path])
