"""The contract suite of port `Runtime`, as the fake and the processes meet it, on a real swarm."""

from tests.contract import test_runtime as suite

globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})
