"""Accuracy of the platform against what simulated cars really did: `make accept` writes `docs/acceptance.md`.

Belongs here: running the acceptance fleets through the whole chain (``chain``), comparing what was published with the
truth (``compare``), and writing the page (``page``). Does not belong here: speed (``benchmarks``), rules of single
functions (``tests``). Nothing of the platform imports from here.
"""
