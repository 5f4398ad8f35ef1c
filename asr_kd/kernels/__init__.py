"""CPU kernels (numba, libc), each beside its reference in torch; one switch turns them off."""
