"""The engine, the saga and the steps, unchanged, on fakes and on virtual time, under faults drawn from a seed.

    make simulate                   thousands of schedules; the seed of one that fails is printed
    make simulate SEED=42           that one again, with everything that happened
    make simulate-mutants           proof that the invariants would notice: broken engines are found

A schedule is a world (`schedule`), consumers as processes (`process`) on a loop of its own (`loop`), faults at
numbered boundaries (`faults`), and what must hold afterwards, some of it all the time (`invariants`).
"""
