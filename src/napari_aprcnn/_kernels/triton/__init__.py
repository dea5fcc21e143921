"""Particle layers on a GPU, written in Triton. Importing this package imports neither triton nor torch.

`guard.why_not` tells whether the kernels can run on a device, `operators` has the operators, `tables` the tables that
the backward needs. The kernels compile for compute capability 8.0 and 9.0 and agree with the reference in Triton's
interpreter. They have not run on a GPU yet: see docs/gpu.md.
"""
