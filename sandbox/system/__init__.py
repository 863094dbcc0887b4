"""The machine: accounts, child processes, ports, directories."""
