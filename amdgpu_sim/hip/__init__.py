"""A stand-in for the HIP runtime, whose launches run on the simulator."""
