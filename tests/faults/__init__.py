"""Proof under fault: a fault is set, the service is used from all sides, the fault is lifted, and all must be right.

`python -m tests.faults --rounds 300 --seed 7` draws a fault for each round (`kinds`, `points`), and checks what must
hold whatever befalls the service (`laps`). The service itself knows nothing of it: `launch` wraps its functions.
"""
