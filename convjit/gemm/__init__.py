"""The sums under convolution: one order of summation, where pixels are met, register tiles, how work is cut.

Lowest first: a file imports from its own line and those before it only.

======================================  ================================================================================
`summation`, `tasks`                    the one order of every sum, and how long a task may take
`tiles`, `micro`, `filling`, `weaving`  lanes are pixels: which register tiles there are, and the kernels
`direct_kernels`                        lanes are output channels: register tiles, packing and transposing
`channel_lanes`, `channel_sums`         one channel a group, and the gradient of a bias: lanes are channels
`window_lanes`, `maxima`, `means`       pooling: lanes are windows
`planes`, `pixels`, `phases`            where taps are met: padded planes, images of either layout, phases of a stride
`bands`                                 rows, of some groups, that a worker fills and reads while its cache holds them
`blocked`, `product`, `landing`         lanes are pixels: scratch, tasks, and results that are not one run a row
`direct`, `direct_points`               lanes are output channels: how that is cut, and what a task computes
`pixel_sums`                            the weight gradient: terms are pixels
`correlation`, `lines`                  one channel a group, with pixels as lanes; of images of one row
`cook_toom`, `winograd*`                Winograd's matrices, transforms and products
`estimate`                              what share of the peak each can be expected to reach
======================================  ================================================================================

Knows panels, rows, lanes and planes. Does not know what is convolved, nor who runs it: a driver in `algorithms` does.
Source: F. Van Zee, R. van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality" (2015), sections
4 and 5; K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""
