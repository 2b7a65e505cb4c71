"""How long a task may take: an interrupt waits for one, and at the end of a launch so do the other workers.

Knows multiplications; does not know what is multiplied. `runtime.launch` cuts launches between tasks, not within them.
"""

# Multiplications of 10 ms on one core, at what float64 reaches on the slowest machine that was measured: 25 a
# nanosecond in register tiles, 13 in the loops of one channel a group.
TASK_MULTIPLICATIONS = 1 << 28
ONE_CHANNEL_TASK_MULTIPLICATIONS = 1 << 27
