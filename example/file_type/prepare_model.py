"""Puts the content-type model of the installed `magika` package, and what it needs to know, into the servable.

The model is 3 MB and comes with `pip install magika`, so it isn't kept here twice.
"""

import importlib.util
import json
import os
import pathlib

SERVABLE = pathlib.Path(__file__).resolve().parent / "file_type"


def magika_directory() -> pathlib.Path:
    spec = importlib.util.find_spec("magika")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this example needs the package that holds the model: pip install magika")
    return pathlib.Path(spec.submodule_search_locations[0])


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes <servable>/1/model.onnx and <servable>/content_types.json, unless they are those of this magika."""
    source = magika_directory()
    (model,) = sorted(source.glob("models/*/model.onnx"))[-1:]
    config = json.loads((model.parent / "config.min.json").read_text(encoding="utf-8"))
    knowledge = json.loads((source / "config" / "content_types_kb.min.json").read_text(encoding="utf-8"))
    content_types = {
        "model": model.parent.name,
        "begin_size": config["beg_size"],
        "end_size": config["end_size"],
        "block_size": config["block_size"],
        "padding": config["padding_token"],
        "smallest": config["min_file_size_for_dl"],
        "labels": config["target_labels_space"],
        "threshold": config["medium_confidence_threshold"],
        "thresholds": config["thresholds"],
        "renamed": config["overwrite_map"],
        "text": sorted(label for label, about in knowledge.items() if about["is_text"]),
    }
    if config["mid_size"] or config["use_inputs_at_offsets"]:
        raise SystemExit(
            f"the model of this magika, {model.parent.name}, looks at other parts of a file than this example"
        )

    text = json.dumps(content_types, indent=1)
    known, target = servable / "content_types.json", servable / "1" / "model.onnx"
    if target.exists() and known.exists() and known.read_text(encoding="utf-8") == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: each file appears whole or not at all, the marker of completeness last.
    for path, content in ((target, model.read_bytes()), (known, text.encode())):
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(content)
        part.replace(path)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
