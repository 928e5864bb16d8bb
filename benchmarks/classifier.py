"""The Classifier against Predict, of one model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from calls import Call, channel_to
from load import PREFIX_BYTES, Load, Pattern, Running
from rounds import Case
from servers import HERE, Servers

from mindserve.proto import CLASSIFY
from mindserve.proto.seldon import ClassificationReply, ClassificationRequest

_FEATURES = (0.125, 0.25, 0.5, 0.75)


def classifier_cases(servers: Servers) -> list[Case]:
    """Four numbers to one tiny model: by Predict, and as a message that is read natively, and in Python."""
    server = servers.mindserve("classifier", ("classifier",)).tcp
    values = np.array(_FEATURES, np.float32)
    loads = [servers.load("Predict", server, Call("classifier", "predict", [{"x": values}], [values]))]
    spec = importlib.util.spec_from_file_location("four", HERE / "servables" / "classifier" / "four.py")
    assert spec is not None
    assert spec.loader is not None
    four = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(four)
    for name, kind in (("Any, read natively", four.Four), ("Any, Python handler", four.Handled)):
        request = ClassificationRequest()
        request.meta.puid = "12345"
        request.data.Pack(kind(**{f"f{number}": value for number, value in enumerate(_FEATURES, 1)}))
        loads.append(_load(name, server, request.SerializeToString(), servers.scratch / f"body-{kind.__name__}"))
    return [Case({"case": "(n) Classifier"}, pattern, loads) for pattern in (Pattern(4, 16), Pattern(64, 1))]


def _load(name: str, server: Running, message: bytes, body: Path) -> Load:
    body.write_bytes(b"\0" + len(message).to_bytes(PREFIX_BYTES - 1, "big") + message)
    with channel_to(server) as channel:
        answer: bytes = channel.unary_unary(CLASSIFY)(message, timeout=120, wait_for_ready=True)
    reply = ClassificationReply.FromString(answer)
    if tuple(each.prediction for each in reply.predictions) != _FEATURES:
        raise RuntimeError(f"{server.address}: {name}: {reply}")
    return Load(name, server, body, len(answer), rpc=CLASSIFY)
