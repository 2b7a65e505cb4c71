"""The public functions for callers inside `@njit` code: same names, arguments, bits and sentences.

What lands in a user's function is a record of the arguments on the stack, two calls through a table in memory, and the
allocation of the results. Everything behind the table is compiled once, for everybody, into the package's own cache:

=================  =================================================================================================
`rows`             which functions there are, what they take and return
`overloads`        their types, checked when the caller is compiled; the instructions that land in its code
`record`           what a caller writes down of a call
`refusals`         errors: a refused record is asked again of Python, which raises its own sentence
`convolutions`,    entries that check a record, without dtypes
`windows`
`products`,        entries that compute, one a dtype: they call the serial twins of the algorithms' drivers by address,
`moving`           the machine code that calls from Python run, hence the same bits
`geometry`,        what these share
`arguments`, `jobs`
=================  =================================================================================================

No step takes Python's global lock: inside a user's `prange` the thread that holds it waits for all others, and one that
asked for it would wait for ever. So nothing is resolved while compiled code runs. Entries are made ready when a user's
function is compiled, and when one is loaded from Numba's cache, where a `Stamp` travels with it (`runtime.entries`):
one of another version of this package makes Numba compile the function anew. The record's writer and the table agree
on a digest of the package's sources besides: a caller that does not is refused, it never runs old code.

A call runs on its own thread. Allocates what it needs with Numba's allocator; an allocation that fails is a
`MemoryError`, but in a `prange` Numba drops exceptions, and results stay unwritten.

Does not know layers, plans, `explain` or `warmup`, and no dtypes but float32 and float64.
"""

from ..runtime.options import COMPILED

if COMPILED:
    from . import overloads  # noqa: F401  # which registers the functions with Numba
