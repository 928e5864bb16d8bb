"""``POST /js/predict``: the Classifier with JSON, as Seldon has it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from mindserve import native
from mindserve.proto import CLASSIFY, messages
from mindserve.proto.seldon import ClassificationReply, ClassificationRequest
from mindserve.rest.context import Backend, ServedClassifier, ServedVersion
from mindserve.rest.http import INLINE_BYTES, Exchange, HttpError
from mindserve.rest.message_json import OWN_FORMS, fill_message, make_pool, parse_json
from mindserve.rest.metadata import error_of, headers_of, make_call
from mindserve.rest.split_names import answering_versions, meant_names
from mindserve.traffic import Split

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity

PATH = "/js/predict"
INSTANCE = messages.Instance.DESCRIPTOR.full_name
_STRUCT = "google.protobuf.Struct"
_PREFIX = "type.googleapis.com/"
# Descriptors that are kept.
_MOST_POOLS = 64
_EXPECTED = 'expected {"data": {…}} and, if there is one, {"meta": {"puid": "…"}}'


class ClassifierTypes:
    """The messages that servables take as the Classifier's data. Only for the event loop.

    Args:
        backend: knows what is served.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pools: dict[tuple[bytes, ...], descriptor_pool.DescriptorPool] = {}

    def find(self, name: str, identity: ClientIdentity | None = None) -> tuple[str, _Taken]:
        """The name of the servable, or that is split, which is called, and what it takes; "": there is none.

        Args:
            name: empty: the only one that answers, of those that the client may call.
            identity: who asks; None: nobody is asked.

        Raises:
            HttpError: there is not one alone, or the client may call none.
        """
        served = served_classifiers(self._backend.versions(), self._backend.splits().values())
        if not name:
            meant = served.meant if identity is None else tuple(filter(identity.may_call, served.meant))
            if identity is not None and served.meant and not meant:
                raise HttpError(403, identity.denial_of_all("the Classifier"), "PERMISSION_DENIED")
            if len(meant) > 1:
                names = ", ".join(f"'{each}'" for each in meant)
                text = (
                    f"the Classifier is answered by the servables {names}: header 'application' has to name one of them"
                )
                raise HttpError(404, text, "NOT_FOUND")
            # Of none the gateway has the text.
            name = next(iter(meant), "")
        classifiers = served.by_name.get(name, ())
        return name, _Taken({each: self._pool(each.files) for each in classifiers})

    def _pool(self, files: tuple[bytes, ...]) -> descriptor_pool.DescriptorPool:
        pool = self._pools.get(files)
        if pool is None:
            if len(self._pools) >= _MOST_POOLS:  # servables were reloaded with others, time and again
                self._pools.clear()
            pool = self._pools[files] = make_pool(files)
        return pool


@dataclasses.dataclass(frozen=True)
class _Taken:
    """The descriptors of what is taken, by whose it is: of variations there may be several."""

    pools: Mapping[ServedClassifier, descriptor_pool.DescriptorPool]

    def types(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.pools for name in each.messages))

    def pool_of(self, name: str) -> descriptor_pool.DescriptorPool | None:
        return next((pool for each, pool in self.pools.items() if name in each.messages and each.files), None)

    def message(self, name: str) -> tuple[Any, descriptor_pool.DescriptorPool] | None:
        """An empty message of a type that a file has, for what answers carry."""
        for pool in self.pools.values():
            try:
                return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))(), pool
            except KeyError:
                continue
        return None


@dataclasses.dataclass(frozen=True)
class ServedClassifiers:
    """What answers the Classifier.

    Attributes:
        by_name: of each name that clients may call: of one that is split the variations', else the newest version's.
        meant: names that a client may mean who names none, sorted: one that is split stands for its variations'
            servables, and its mirrors' are not for clients.
    """

    by_name: Mapping[str, tuple[ServedClassifier, ...]]
    meant: tuple[str, ...]


def served_classifiers(versions: Sequence[ServedVersion], splits: Collection[Split]) -> ServedClassifiers:
    """What of that which is served answers the Classifier."""
    found: dict[str, tuple[ServedClassifier, ...]] = {}
    for each in sorted(versions, key=_newest_last):
        if each.classifier is not None:
            found[each.servable] = (each.classifier,)
    names: dict[str, tuple[ServedClassifier, ...]] = {}
    for split in splits:
        answering = [version.classifier for version in answering_versions(split, versions) if version.classifier]
        if answering:
            names[split.name] = tuple(dict.fromkeys(answering))
    return ServedClassifiers({**found, **names}, tuple(sorted(meant_names(found, splits))))


def _newest_last(version: ServedVersion) -> tuple[bool, int]:
    return version.ready, version.version


async def classify(exchange: Exchange, types: ClassifierTypes) -> None:
    """Answers a request for a classification.

    Raises:
        HttpError: what is wrong with it, or how the call ended.
        ClientGone: nobody waits for the answer.
    """
    if exchange.method != "POST":
        wrong = f"{PATH} takes POST, but actually {exchange.method}"
        raise HttpError(405, wrong, "UNIMPLEMENTED", [(b"allow", b"POST")])
    name, taken = types.find(exchange.headers.get(b"application", b"").decode("latin-1"), exchange.identity)
    if name:
        exchange.permit(name)
    # Neither the body nor what is made of it is kept while the client takes the answer.
    messages = [await _encode(exchange, taken)]
    ended = await exchange.context.calls.unary(make_call(exchange, CLASSIFY, messages))
    messages.clear()
    if ended.code:
        raise error_of(ended)
    await exchange.answer_call(ended, lambda message: _decode(message, taken), headers_of(ended))


async def _encode(exchange: Exchange, taken: _Taken) -> bytes:
    body = await exchange.body()
    return await exchange.context.run(len(body) > INLINE_BYTES, encode_body, body, taken)


def encode_body(body: bytes, taken: _Taken) -> bytes:
    """The ClassificationRequest that a body is.

    Args:
        body: JSON, as the document has it.
        taken: what the servable takes.

    Raises:
        HttpError: it is none.
    """
    try:
        value = parse_json(body)
        if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
            raise ValueError(_EXPECTED)
        unknown = [key for key in value if key not in ("data", "meta")]
        meta = value.get("meta")
        if unknown:
            raise ValueError(f"there is no '{unknown[0][:80]}', {_EXPECTED}")
        if meta is not None and not (isinstance(meta, dict) and set(meta) <= {"puid"}):
            raise ValueError(f"'meta' is wrong, {_EXPECTED}")
        puid = (meta or {}).get("puid", "")
        if not isinstance(puid, str):
            raise ValueError(f"'puid' is no string, {_EXPECTED}")
        request = ClassificationRequest()
        request.meta.puid = puid
        data = value["data"]
        kind = _type_of(data.get("@type"), taken)
        request.data.type_url = _PREFIX + kind
        request.data.value = _encode_data(data, kind, taken)
        return bytes(request.SerializeToString())
    except ValueError as error:
        raise HttpError(400, f"the body is no request for a classification: {error}", "INVALID_ARGUMENT") from None


def _type_of(given: Any, taken: _Taken) -> str:
    """The full name of the data's type: what it says itself, or the only one that is taken."""
    types = taken.types()
    if isinstance(given, str):
        return given.rpartition("/")[2]
    if given is not None:
        raise ValueError("'@type' is no string")
    if len(types) > 1:
        names = ", ".join(f"'{name}'" for name in types)
        raise ValueError(f"'@type' in 'data' has to say which message it is, of {names} and '{INSTANCE}'")
    return types[0] if types else INSTANCE


def _encode_data(data: dict[str, Any], kind: str, taken: _Taken) -> bytes:
    """The bytes of the message that the JSON of an Any has, in which "@type" need not stand."""
    value: Any = {name: item for name, item in data.items() if name != "@type"}
    pool = taken.pool_of(kind)
    if pool is not None:
        # An Any has what is no object of fields in "value"; a Struct of which the type goes without saying is as clear.
        if kind in OWN_FORMS and (kind != _STRUCT or data.get("@type") is not None):
            if set(value) != {"value"}:
                raise ValueError(f"'data' should have 'value', and beside it nothing but '@type', as it is a {kind}")
            value = value["value"]
        try:
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(kind))()
            return fill_message(message, value, pool)
        except ValueError as error:
            raise ValueError(f"'data' is no {kind} in JSON: {error}") from None
    if kind in taken.types():
        raise ValueError(f"the proto files of {kind} are too large to be known here: send it by gRPC")
    if kind == INSTANCE:
        return _encode_instance(value)
    names = ", ".join(f"'{name}'" for name in (*taken.types(), INSTANCE))
    raise ValueError(f"the servable does not take '{kind[:256]}', it takes {names}")


def _encode_instance(data: dict[str, Any]) -> bytes:
    core = native.load()
    try:
        body = json.dumps({"instances": [data]}).encode()
    except RecursionError:  # reading it took a little less of the stack
        raise ValueError("expected fewer levels, one inside the other") from None
    try:
        request = messages.PredictRequest.FromString(core.predict_request_from_json(body, "_", "_", 0))
    except core.NativeError as error:
        raise ValueError(f"'data' is no instance: {error}") from None
    return bytes(request.instances[0].SerializeToString())


def _decode(data: bytes, taken: _Taken) -> bytes:
    try:
        reply = ClassificationReply.FromString(data)
        answer = {
            "meta": {field: getattr(reply.meta, field) for field in ("puid", "modelName", "variation")},
            "predictions": [
                {
                    "prediction": _number(each.prediction),
                    "predictedClass": each.predictedClass,
                    "confidence": _number(each.confidence),
                }
                for each in reply.predictions
            ],
            "custom": _decode_custom(reply.custom, taken),
        }
    except DecodeError as error:
        raise HttpError(500, f"the answer has no JSON form: {error}", "INTERNAL") from None
    return json.dumps(answer, ensure_ascii=False).encode()


def _number(value: float) -> float | str:
    """As protobuf writes doubles: what JSON has no number for is a string."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decode_custom(custom: Any, taken: _Taken) -> Any:
    if not custom.type_url:
        return None
    as_bytes = {"@type": custom.type_url, "value": base64.b64encode(custom.value).decode()}
    name = custom.type_url.rpartition("/")[2]
    found = taken.message(name)
    if found is None:
        return as_bytes
    message, pool = found
    try:
        message.ParseFromString(custom.value)
        fields = json_format.MessageToDict(message, descriptor_pool=pool)
    except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError):
        # Bytes that are no such message, or one without a form in JSON, which may well be what the client has sent.
        return as_bytes
    return {"@type": custom.type_url, **({"value": fields} if name in OWN_FORMS else fields)}
