"""The one place that knows Numba: compile policy, disk cache, threads, memory.

Everything above calls `kernel`, `driver`, `prange`, `fma`, `workers` and `allocate`, and never a Numba decorator.
Each file guards against one kind of hazard:

=============  ==============================================================================================
`compile`      which options kernels are compiled with; a serial and a parallel twin of every driver
`cache`        compiled code on disk: never stale, never an exception, one warning where the place is unusable
`threads`      how many threads a call may use; the thread pool's start beside BLAS; forked children
`memory`       a result that cannot fit is a `MemoryError` before memory is touched
`fma`          the fused multiply-add in which every sum is written, compiled and not
`copying`      a run of elements copied as one `memcpy`
=============  ==============================================================================================
"""
