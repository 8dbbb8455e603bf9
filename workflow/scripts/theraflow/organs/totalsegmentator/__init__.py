"""TotalSegmentator in a process of its own: its weights, the device it runs on, and the worker that keeps it loaded.

`devices` and `weights` serve the Snakefile while it plans: they load nothing but the standard library.
"""
