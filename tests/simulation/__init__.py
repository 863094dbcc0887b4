"""The engine, the saga and the steps, unchanged, on fakes and on virtual time, under faults drawn from a seed.

    make simulate                   thousands of schedules; the seed of one that fails is printed
    make simulate SEED=42           that one again, with its trace
    make simulate-mutants           proof that the invariants notice: broken guarantees are found

| module | what it is |
|---|---|
| `schedule` | one schedule: platform, customers, consumers, operators and faults |
| `loop` | the event loop with virtual time |
| `process` | a consumer as a process, with the boundaries that it passes |
| `fault_plan`, `fault_injection` | which faults happen at which boundary, drawn from the seed; and how they happen |
| `customers`, `operators`, `doctor` | what people do meanwhile |
| `invariants`, `leftovers`, `no_secrets` | what must hold afterwards, and some of it at every moment |
| `published` | events and dead letters as invariants read them |
| `mutants`, `broken_*` | guarantees broken on purpose |
| `unplayable` | why a schedule could not be played to its end |
"""
