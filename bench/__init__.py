"""Speed of convolution, measured beside its peers: `python -m bench` from a checkout.

Each contender works in a process of its own and they are measured in turn, problem by problem; every answer is checked.

=============  ==============================================================================================
`problems`     the named problems: the one table that says what is measured
`contenders`   who is measured, and what each can express
`worker`       one contender in a process, answering requests line by line
`answers`      what the right answer is, computed tap by tap in float64
`measure`      in turn, round by round: medians
`report`       one table for people, one JSON file for machines
`peace`        a command of its own, `python -m bench.peace`: beside BLAS, after a pause, under Ctrl-C
=============  ==============================================================================================
"""
