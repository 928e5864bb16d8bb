"""The Classifier against Predict, of one model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
from calls import Call, channel_to
from load import Load, Pattern, Running, write_body
from rounds import Case
from servers import HERE, Servers

from mindserve.proto import CLASSIFY
from mindserve.proto.seldon import ClassificationReply, ClassificationRequest

_FEATURES = (0.125, 0.25, 0.5, 0.75)
# The messages of the servable: how each is read.
KINDS = {"native": "Four", "python": "Handled"}


def predict_call() -> Call:
    """What the Classifier is measured against."""
    values = np.array(_FEATURES, np.float32)
    return Call("classifier", "predict", [{"x": values}], [values])


def write_request(kind: str, body: Path) -> bytes:
    """A ClassificationRequest with a message of `KINDS`; also as a gRPC message, behind its prefix, for h2load."""
    request = ClassificationRequest()
    request.meta.puid = "12345"
    features = {f"f{number}": value for number, value in enumerate(_FEATURES, 1)}
    request.data.Pack(getattr(_messages(), KINDS[kind])(**features))
    message: bytes = request.SerializeToString()
    write_body(body, message)
    return message


def classifier_cases(servers: Servers) -> list[Case]:
    """Four numbers to one tiny model: by Predict, and as a message that is read natively, and in Python."""
    server = servers.mindserve("classifier", ("classifier",)).tcp
    loads = [servers.load("Predict", server, predict_call())]
    for name, kind in (("Any, read natively", "native"), ("Any, Python handler", "python")):
        loads.append(_load(name, server, kind, servers.scratch / f"body-{kind}"))
    return [Case({"case": "(n) Classifier"}, pattern, loads) for pattern in (Pattern(4, 16), Pattern(64, 1))]


def _load(name: str, server: Running, kind: str, body: Path) -> Load:
    message = write_request(kind, body)
    with channel_to(server) as channel:
        answer: bytes = channel.unary_unary(CLASSIFY)(message, timeout=120, wait_for_ready=True)
    reply = ClassificationReply.FromString(answer)
    if tuple(each.prediction for each in reply.predictions) != _FEATURES:
        raise RuntimeError(f"{server.address}: {name}: {reply}")
    return Load(name, server, body, len(answer), rpc=CLASSIFY)


def _messages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("four", HERE / "servables" / "classifier" / "four.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
