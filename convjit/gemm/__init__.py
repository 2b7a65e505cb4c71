"""The matrix product under convolution: one order of summation, packing, micro-kernel, blocks.

Knows panels, rows and lanes. Does not know what is convolved: an image enters through `gather` while it is packed, so
no column matrix exists.
Source: F. Van Zee, R. van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality" (2015), sections
4 and 5; K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""
