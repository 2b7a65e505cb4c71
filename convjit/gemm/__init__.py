"""The matrix product under convolution: one order of summation, packing, micro-kernel, blocks.

From top to bottom: `product` (which grid points, rows and terms a task takes), `planes` (where they are met), `landing`
(results that are not one run a row), `blocked` (scratch and totals), `tiles`, `micro` and `filling` (what runs in
registers), `summation` (the one order of every sum). Knows panels, rows and lanes. Does not know what is convolved:
images enter while a panel is packed, so no column matrix exists.
Source: F. Van Zee, R. van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality" (2015), sections
4 and 5; K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
"""
