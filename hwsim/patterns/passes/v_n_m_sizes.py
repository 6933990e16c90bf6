"""Sizes of V:N:M blocks that GPU kernels take. Apart, so that reading them loads no Numba."""

COLUMNS, N = 4, 2
# What GPU kernels take. Rows of a block: sides of a tile of tensor cores. Columns: the published
# ones and powers of two; below eight there is little to gain, since four of them are multiplied.
ROWS = (128, 64, 32, 16)

WIDTHS = (128, 100, 80, 64, 50, 40, 32, 24, 20, 16, 12, 10, 8)
