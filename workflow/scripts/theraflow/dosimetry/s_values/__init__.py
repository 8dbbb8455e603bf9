"""Absorbed dose per decay: transport in water, radial kernels, spheres and voxels."""
