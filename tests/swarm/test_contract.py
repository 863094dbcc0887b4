"""The contract suite of port `Runtime`, which the fake and the processes pass, too, on a real swarm."""

from tests.contract import test_runtime as suite

globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})
