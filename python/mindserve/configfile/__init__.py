"""The config file of ``mindserve run``: YAML text, checked against what the options' own classes say.

What can stand in the file is derived from `ServerConfig` and the classes in it: their fields are the keys, their types
and docstrings the schema. A new option of `ServableStartConfig` or `Limits` is one of the file by itself.
"""

from mindserve.configfile.load import ConfigFile, Draft, draft, load
from mindserve.configfile.problems import ConfigFileError, Place, Problem, in_order
from mindserve.configfile.schema import json_schema

__all__ = ["ConfigFile", "ConfigFileError", "Draft", "Place", "Problem", "draft", "in_order", "json_schema", "load"]
