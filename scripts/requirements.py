"""Prints what pyproject.toml asks for, one requirement a line: `requirements.py build cpu test dev`.

"build" stands for what the build back end needs, the other names for extras; the package's own dependencies always
come with them. pip can only tell them after it has built the package, and that needs the first of them.

`requirements.py --group models` prints a dependency group instead, which is alone: its packages are to be installed
without what they require.
"""

import pathlib
import sys
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]


def requirements(project_file: pathlib.Path, groups: list[str]) -> list[str]:
    document: dict[str, Any] = tomllib.loads(project_file.read_text(encoding="utf-8"))
    found = list(document["project"]["dependencies"])
    for group in groups:
        if group == "build":
            found += document["build-system"]["requires"]
        else:
            found += document["project"]["optional-dependencies"][group]
    return found


def dependency_group(project_file: pathlib.Path, name: str) -> list[str]:
    document: dict[str, Any] = tomllib.loads(project_file.read_text(encoding="utf-8"))
    return list(document["dependency-groups"][name])


if __name__ == "__main__":
    root = pathlib.Path(__file__).resolve().parent.parent
    if sys.argv[1] == "--group":
        found = dependency_group(root / "pyproject.toml", sys.argv[2])
    else:
        found = requirements(root / "pyproject.toml", sys.argv[1:])
    print("\n".join(found))
