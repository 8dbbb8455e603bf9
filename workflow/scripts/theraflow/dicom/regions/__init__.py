"""A reader's regions in their formats, and contours to voxels."""
