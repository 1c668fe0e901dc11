"""The fault bench: faults of a fixed size put into healthy logs, and how well detectors find them.

Belongs here: reference sizes, injection, the bench and its baselines; pure functions. Does not belong here: any line
or setting of a detector (``anomaly.rules`` is never imported), where logs come from, the page that shows the figures.
"""
