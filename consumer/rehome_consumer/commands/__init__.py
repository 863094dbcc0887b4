"""The command line, one module per group of commands; each has `add(commands)` and its work."""
