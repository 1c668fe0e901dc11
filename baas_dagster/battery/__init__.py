"""Capacity, open-circuit voltage, state of health and its trend: pure functions on arrays and frames.

Belongs here: every estimate about a pack that SQL is bad at, with its uncertainty. Does not belong here: dagster,
files, SQL, the simulator (an import test says so), how sessions and awake periods are cut (dbt models).

``rules`` holds every number; ``rests`` reads rest voltages out of awake periods; ``curve`` and ``ocv`` turn them into
states of charge; ``capacity`` makes and pools capacity estimates; ``trend`` their slopes; ``soh`` the monthly table.
"""
