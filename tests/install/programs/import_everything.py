"""Imports every module of a package but those named after it; prints where the package is."""

import importlib
import pkgutil
import sys

name, *left_out = sys.argv[1:]
package = importlib.import_module(name)
for module in pkgutil.walk_packages(package.__path__, f"{name}."):
    if module.name not in left_out:
        importlib.import_module(module.name)
print(package.__path__[0])  # noqa: T201 - this is what it is for
