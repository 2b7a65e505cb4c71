"""The vocabulary in which micro-kernels are emitted: vectors, loads, stores, fused multiply-adds, a loop.

Knows LLVM's IR. Does not know convolution. Words are machine-independent: LLVM turns a 256-bit vector into one register
where there is one and into several where not.
"""
