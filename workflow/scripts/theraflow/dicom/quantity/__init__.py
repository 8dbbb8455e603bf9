"""What voxel values mean: SUV and activity concentration out of headers, sheets and calibrations."""
