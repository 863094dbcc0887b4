"""Imports every module of the contract but the pytest plugin; prints where it is from."""

import importlib
import pkgutil

import events

for module in pkgutil.walk_packages(events.__path__, "events."):
    if module.name != "events.testing.plugin":
        importlib.import_module(module.name)
print(events.__path__[0])  # noqa: T201 - this is what it is for
