"""Confines one process tree behind the kernel's walls. Knows no language: it runs what a `Spec` says."""
