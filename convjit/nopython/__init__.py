"""The public functions for callers inside `@njit` code: same names, arguments, bits and sentences.

What lands in a user's function is a record of the arguments on the stack, two calls through a table in memory, and the
allocation of the results. Everything behind the table is plain code (`runtime.plain`), compiled once, for everybody,
into the package's own cache:

=================  =================================================================================================
`rows`             which functions there are, what they take and return
`checks`           types of arguments, when a caller is compiled
`overloads`        the instructions that land in its code
`record`           what a caller writes down of a call
`refusals`         errors: a refused record is asked again of Python, which raises its own sentence
`convolutions`,    entries that check a record, without dtypes
`windows`, `seed`
`products`,        entries that compute, one a dtype: they run the tasks of the algorithms' own drivers with the kernels
`depthwise`,       that calls from Python run, hence the same bits
`moving`
`geometry`,        what these share
`arguments`, `jobs`
`outputs`
=================  =================================================================================================

No step but a refusal takes Python's global lock, for which threads of a `prange`, and those that gave it up, would
queue. So nothing is resolved while compiled code runs. Entries are made ready when a user's function is compiled, and
when one is loaded from Numba's cache, where a `Stamp` travels with it (`runtime.entries`): one of another version of
this package makes Numba compile the function anew. The record's writer and the table agree on a digest of the package's
sources besides: a caller that does not is refused, it never runs old code.

A call computes on its own thread, and takes its workspaces from Numba's allocator. One that fails is a `MemoryError`.
In a `prange` Numba drops exceptions of its pool's threads, and makes a `SystemError` of one of the calling thread:
results of refused calls stay unwritten, so shapes are better checked before the loop. In a compiled `try`, Numba 0.68
on Python 3.11 forgets the names of keyword arguments, and takes them by position: there all are written by position,
for which those behind `*` may be, too, or the call stands in a function of its own.

A first call takes 0.2 to 0.3 s where the package's cache is warm, most of which Numba needs for the caller. Where it
is cold, kernels and entries are compiled: 0.5 to 0.9 s in all for pads, pools and columns, 1.3 to 2.9 s for
convolutions and their gradients, and 2.0 to 4.0 s where `groups` is not a literal 1, which needs more kernels
(`python -m bench.first_calls`, on 2 cores of an AMD EPYC). `warmup("nopython")` compiles them ahead.

Does not know layers, plans or `explain`, and no dtypes but float32 and float64.
"""

from ..runtime.options import COMPILED

if COMPILED:
    from . import overloads  # noqa: F401  # which registers the functions with Numba
