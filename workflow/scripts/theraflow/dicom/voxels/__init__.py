"""From files to slices in order: geometry and pixels."""
