"""Compile policy, disk cache, threads, forks, interrupts, memory: the one place beside overloads that knows Numba.

Everything above writes what one task does (`driver`, `kernel`), runs it (`Launch`, `launch`), asks how many `workers`
to use and where arrays come from (`allocate`), and never sees a Numba decorator. Each file guards against one kind of
hazard:

============  =========================================================================================================
`options`     the mark of a `kernel`, which becomes a part of what calls it; which options Numba compiles with
`compile`     a `driver`, made of what one task does, compiled for the arguments of its first call
`loops`       its loop in plain code: first calls in tenths of a second
`twins`       the same as Numba compiles them, for what plain code does not take
`launch`      what is decided once a problem; pieces of at most about 50 ms, so that Ctrl-C is heard between them
`turns`       the loops of a call on one team: no waiting for a thread that wakes late, or whose core is taken
`tiles`       planes cut into tiles, so that no task is long however large an image is
`team`        tasks dealt to free workers by a counter: no waiting for an equal share on a core that is taken
`contention`  while another thread or process has the cores, calls take their own thread: no waiting for slices
`threads`     how many threads a call may use; the pool's start beside BLAS; one parallel loop at a time under workqueue
`forks`       forked children run serial twins; no fork finds a lock locked
`ending`      the end of a process waits for a compile, and for a while nobody begins another one
`containers`  the control group's CPU quota and memory limit
`cache`       compiled code on disk: never stale, never an exception, one warning where the place is unusable
`memory`      a result that cannot fit is a `MemoryError` before memory is touched
`reusing`     a network's steps use their large arrays again, and one room for workspaces: no waiting for cleared pages
`fma`         the fused multiply-add in which every sum is written, compiled and not
`copying`     a run of elements copied as one `memcpy`
`files`       files of users, written aside and put in place whole: a full disk leaves the old one
`emitting`    micro-kernels as LLVM IR, compiled alone in whole vectors, kept on disk, called by address
`entries`     entry points for users' compiled functions, reached through a table in memory: no stale code runs
`plain`       the values and words of plain code, which becomes machine code without Numba's compiler; its
              `instructions`, its `syntax`, and `translating`, which makes a whole function of it
`borrowing`   arrays that a loop does not count as in use, atomically, for each task
`status`      floating-point flags, which NumPy reads, put back after every loop
============  =========================================================================================================

What an algorithm has to keep: a task writes what no other task writes, takes at most about 20 ms, allocates nothing
(a failed allocation inside a parallel loop is lost, and the result with it) and raises nothing. Scratch space is
allocated before the launch, a part for each worker. `tests/runtime/` runs every hazard in a process of its own.
"""

import os

_threads = os.environ.get("NUMBA_NUM_THREADS", "").strip()
if _threads.lstrip("+-").isdecimal() and int(_threads) < 1:
    # Numba's own sentence names neither the variable nor the value.
    raise ImportError(f"convjit: NUMBA_NUM_THREADS must be at least 1, got {_threads}")
