"""Imports every module of the contract but the pytest plugin; prints where it is from."""

import importlib
import pkgutil

import rehome_events

for module in pkgutil.walk_packages(rehome_events.__path__, "rehome_events."):
    if module.name != "rehome_events.testing.plugin":
        importlib.import_module(module.name)
print(rehome_events.__path__[0])  # noqa: T201 - this is what it is for
