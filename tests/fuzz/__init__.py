"""Every parser of input from outside, fed with malformed and hostile bytes.

`parsers.PARSERS` is the table. A parser's check takes any bytes, gives them to the real code, and raises when that
code breaks a promise: an error of another kind than documented, a result that cannot be read again, a path that
leads out of its directory, a secret in an error. The same checks run in two ways:

- `make fuzz` searches for new inputs, guided by coverage (`python -m tests.fuzz --help`);
- `tests/unit/test_parsers.py` runs them on good inputs (the seeds), on inputs that broke a parser once (`corpus/`),
  on nearly good ones, and on random bytes.
"""
