"""Time-activity curves: their form, fits to points, and what one point tells."""
