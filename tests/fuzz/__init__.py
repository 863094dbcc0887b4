"""Every parser of what comes from outside, fed with bytes that nobody of good will would send.

`parsers.PARSERS` is the table. A parser's check takes any bytes, gives them to the real code, and raises when that
code breaks a promise: an error of another kind than documented, a result that its own reading refuses, a path that
leads out, a secret in an error. The same checks run in three ways:

- `make fuzz` looks for new inputs, guided by coverage (`python -m tests.fuzz --help`);
- `tests/unit/test_corpus.py` replays `corpus/`, where an input that broke something stays for ever;
- hypothesis spoils good inputs of theirs in `tests/unit/test_parser_properties.py`.
"""
