"""Speed of convolution, measured beside its peers: `python -m bench` from a checkout.

Each contender works in a process of its own and they are measured in turn, problem by problem; every answer is checked.

=============  ==============================================================================================
`problems`     the named problems: the tables that say what is measured
`contenders`   who is measured, and what each can express: a file each
`worker`       one contender in a process, answering requests line by line
`process`      that process, seen from the one who asks
`memory`       how much memory a process takes from some moment on
`answers`      what the right answer is, computed tap by tap in float64
`measure`      in turn, round by round: medians
`ratios`       what the medians say beside each other: the best peer, means, scaling
`report`       tables for people
`results`      one JSON file for machines, stamped
`peak`         a command of its own, `python -m bench.peak`: what the FMA units can do at most
`figure`       a command of its own, `python -m bench.figure`: the picture of a result
`race`         a command of its own, `python -m bench.race`: training, step by step, beside PyTorch and NumPy
`networks`     what is trained in a race: a table, its data and first weights
`racers`       who trains: convjit, PyTorch, the original NumPy way, each in a process of `race_worker`
`first_calls`  a command of its own, `python -m bench.first_calls`: what first calls from compiled code wait for
`peace`        a command of its own, `python -m bench.peace`: beside BLAS, after a pause, under Ctrl-C
=============  ==============================================================================================
"""
