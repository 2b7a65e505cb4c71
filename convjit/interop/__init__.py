"""Bridges to other libraries, each one file that is imported only where it is used.

`autograd` (differentiation by HIPS autograd), `dask` (arrays in chunks), `onnx` (operators of ONNX's reference
evaluator), `torch` (a function in PyTorch's graph), `weights` (files with PyTorch's names). Importing convjit imports
none of them, and each knows convjit's public names and its own library alone.
"""
