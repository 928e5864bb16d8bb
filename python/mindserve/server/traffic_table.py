"""Which names a server splits: the table behind ``set_traffic`` and ``mindserve traffic``."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mindserve import checks, logs
from mindserve.errors import ConfigError
from mindserve.traffic import Mirror, Split, Variation

_log = logs.get_logger("server")

Apply = Callable[[Sequence[Split]], None]
Served = Callable[[], Mapping[str, Collection[int]]]


class TrafficTable:
    """The splits, changed one at a time. Thread-safe.

    Args:
        apply: has the gateway split these names, and no others.
        served: the servables that were started, and the versions of each.
    """

    def __init__(self, apply: Apply, served: Served) -> None:
        self._apply = apply
        self._served = served
        self._lock = threading.Lock()
        self._splits: dict[str, Split] = {}  # replaced as a whole, by whoever holds the lock
        # Names that were changed from outside of the start script.
        self._changed: set[str] = set()

    def splits(self) -> dict[str, Split]:
        """By their names, in alphabetical order. Does not wait for a change that is under way."""
        return dict(sorted(self._splits.items()))

    def get(self, name: str) -> Split | None:
        """The split of a name; does not wait either."""
        return self._splits.get(name)

    def set(self, split: Split) -> None:
        """Adds a split, or replaces the one of its name.

        Raises:
            ConfigError: it goes to what is not served.
        """
        with self._lock:
            self._set(split)

    def clear(self, name: str) -> bool:
        """Removes a split. Returns whether there was one."""
        with self._lock:
            return self._clear(name)

    def change(self, name: str, change: Mapping[str, Any]) -> Split:
        """Changes a split from outside of the start script, or adds one; what is not told stays.

        Args:
            name: the split's.
            change: "variations", each a dict with "name" and what is to change of "weight", "servable" and "version";
                "remove", names of variations; "sticky", None for none; "mirrors", dicts of `Mirror`'s attributes,
                instead of those there were. All may be absent.

        Returns:
            What it is now.

        Raises:
            ConfigError: something in ``change`` is wrong, or goes to what is not served.
        """
        with self._lock:
            split = _changed(self._splits.get(name), name, change)
            self._set(split)
            self._changed.add(name)
            return split

    def remove(self, name: str) -> None:
        """Removes a split from outside of the start script.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._lock:
            if not self._clear(name):
                raise ConfigError(_no_split(name, self._splits))
            self._changed.add(name)

    def handed_over(self) -> list[dict[str, Any]]:
        """What was changed from outside of the start script: a successor's script does not know it."""
        with self._lock:
            return [
                {"name": name, "split": self._splits[name].as_dict() if name in self._splits else None}
                for name in sorted(self._changed)
            ]

    def take_over(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """What a predecessor's `handed_over` gave holds here too, whatever is served."""
        with self._lock:
            splits = dict(self._splits)
            for each in changes:
                try:
                    split = None if each["split"] is None else Split.from_dict(each["split"])
                except ConfigError as error:  # of another version of MindServe
                    _log.warning("how the traffic of '%s' was split can't be taken over: %s", each["name"], error)
                    continue
                splits.pop(each["name"], None)
                if split is not None:
                    splits[each["name"]] = split
                self._changed.add(each["name"])
            if splits != self._splits:
                self._replace(splits)

    def _set(self, split: Split) -> None:
        served = self._served()
        for each in split.variations:
            _check_served(f"variation '{each.name}'", each.servable, each.version, served)
        for mirror in split.mirrors:
            _check_served("a mirror", mirror.servable, mirror.version, served)
        self._replace({**self._splits, split.name: split})

    def _clear(self, name: str) -> bool:
        known = name in self._splits
        if known:
            self._replace({each: split for each, split in self._splits.items() if each != name})
        return known

    def _replace(self, splits: dict[str, Split]) -> None:
        self._apply(tuple(splits.values()))
        self._splits = splits


def _check_served(what: str, servable: str, version: int, served: Mapping[str, Collection[int]]) -> None:
    if servable not in served:
        known = ", ".join(f"'{name}'" for name in sorted(served)) or "none"
        raise ConfigError(
            f"The servable '{servable}' of {what} was not started: expected one of those that were, {known}"
        )
    if version and version not in served[servable]:
        known = ", ".join(str(number) for number in sorted(served[servable]))
        raise ConfigError(
            f"Version {version} of servable '{servable}', of {what}, is not served: expected 0, the newest, or one of "
            f"those that are, {known}"
        )


def _no_split(name: str, splits: Collection[str]) -> str:
    known = ", ".join(f"'{each}'" for each in sorted(splits))
    return f"No traffic of '{name}' is split: " + (f"only that of {known}" if known else "none is")


def _changed(split: Split | None, name: str, change: Mapping[str, Any]) -> Split:
    variations = {each.name: each for each in split.variations} if split else {}
    for given in change.get("variations", ()):
        values = {key: given[key] for key in ("weight", "servable", "version") if key in given}
        which = checks.check_str("name", given.get("name"))
        if which in variations:
            variations[which] = dataclasses.replace(variations[which], **values)
        elif "servable" in values:
            variations[which] = Variation(which, **values)
        else:
            known = ", ".join(f"'{each}'" for each in variations) or "none"
            raise ConfigError(
                f"There is no variation '{which}' of '{name}', of which there is {known}: a new one needs a servable"
            )
    for which in change.get("remove", ()):
        if which not in variations:
            raise ConfigError(f"There is no variation '{which}' of '{name}' to remove")
        del variations[which]
    sticky = change.get("sticky", split.sticky if split else None)
    mirrors = split.mirrors if split else ()
    if "mirrors" in change:
        mirrors = tuple(Mirror(**each) for each in change["mirrors"])
    return Split(name, tuple(variations.values()), sticky, mirrors)
