"""Battery data of electric-vehicle fleets, from delivered logs to published figures."""
