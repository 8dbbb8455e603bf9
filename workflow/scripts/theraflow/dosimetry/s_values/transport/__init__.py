"""Transport of electrons and photons in water, from first principles: what the radial kernels are made with.

`water` knows the cross sections, `electrons` and `photons` follow the particles, `radial` puts the emissions of a
nuclide through both. Only the making of kernels needs it; doses are read from `resources/kernels`.
"""

from theraflow.dosimetry.s_values.transport.radial import RadialKernel, compute_kernel, make_kernel

__all__ = ["RadialKernel", "compute_kernel", "make_kernel"]
