"""What lets programs reach a simulated GPU, of whichever vendor: a stand-in for its runtime library, and for Triton its
driver. The simulators bring the kernels' language and what their vendors name or lay out in their own way."""
