"""The part of the OpenAPI document that ``POST /js/predict`` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pool

from mindserve.rest.message_schemas import MessageSchemas
from mindserve.rest.seldon import INSTANCE, ServedClassifiers

Schema = dict[str, Any]
_NUMBER: Schema = {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}


def request_schema(served: ServedClassifiers, refer: Callable[[str], Schema], schemas: Schema) -> Schema:
    """What is posted; adds the schemas of the messages that ``data`` may be.

    Args:
        served: what answers.
        refer: what a schema is referred to by, by its name.
        schemas: of the document.
    """
    kinds: list[Schema] = []
    for each in dict.fromkeys(each for found in served.by_name.values() for each in found):
        pool = descriptor_pool.DescriptorPool()
        for file in each.files:
            pool.AddSerializedFile(file)
        for name in each.messages if each.files else ():
            found = MessageSchemas(refer)
            reference = found.add(pool.FindMessageTypeByName(name))
            # Of several of one name the first is shown: which one counts, the servable says.
            for key, schema in found.found.items():
                schemas.setdefault(key, schema)
            if reference not in kinds:
                kinds.append(reference)
    instance = {"type": "object", "description": f"Inputs by their names, with '@type' '{INSTANCE}'."}
    data: Schema = {
        "description": "A message that the servable takes. '@type' says which, where there are several; or an "
        "instance, as POST /model takes it.",
        "anyOf": [*kinds, instance],
    }
    puid = {"type": "string", "description": "The client's id of the prediction. Default: one is made."}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"meta": {"type": "object", "properties": {"puid": puid}}, "data": data},
    }


def reply_schema() -> Schema:
    """What is answered."""

    def of(**properties: Schema) -> Schema:
        return {"type": "object", "required": list(properties), "properties": properties}

    text = {"type": "string"}
    prediction = of(prediction=_NUMBER, predictedClass=text, confidence=_NUMBER)
    return of(
        meta=of(puid=text, modelName=text, variation=text),
        predictions={"type": "array", "items": prediction},
        custom={"anyOf": [{"type": "null"}, {"type": "object", "properties": {"@type": text}}]},
    )
