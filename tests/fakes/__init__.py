"""Ports without a world behind them: no I/O, no time of their own, state in plain public attributes."""
