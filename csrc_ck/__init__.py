"""Composable_kernel's attention: C++ that instantiates it, and the generator of the instances."""
