"""Every device that torch runs on itself: CPU, CUDA, ROCm, Apple's MPS, Intel's XPU, and those that are described."""
