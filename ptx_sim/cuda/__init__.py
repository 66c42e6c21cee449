"""A stand-in for the CUDA runtime, whose launches are executed here."""
