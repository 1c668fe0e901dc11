"""What is going wrong in a pack: detectors, episodes and the order in which cars are called in.

Belongs here: pure functions from staged rows and marts to evidence, readings, episodes and ranks. Does not belong here:
Dagster, files, the warehouse (``assets``), and anything of the simulator.

``rows`` is what a LOCAL detector sees of one partition, ``detector`` what a detector is, ``registry`` lists them all,
``rules`` holds every number, ``episodes`` turns readings into episodes, ``ranking`` episodes into the inspection queue.
"""
