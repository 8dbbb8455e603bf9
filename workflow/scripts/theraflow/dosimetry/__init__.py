"""Dosimetry: activity of regions, time-activity curves, absorbed dose per administered activity, dose maps, plan.

The scheme is that of MIRD: absorbed dose = time-integrated activity x S value. Kinetics measured with one
nuclide are carried to another by exchanging the physical decay.
"""
