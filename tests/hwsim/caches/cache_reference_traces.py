"""The seeded address traces that tests/data/cache.json names: (addresses, is_store) each.

Random numbers are a splitmix64 counter stream. Arrays start at multiples of 2²⁸: A, B, C, indices.
"""

import numpy as np

A, B, C, INDEX = 0, 1 << 28, 2 << 28, 3 << 28


def splitmix(seed, n):
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def below(seed, n, limit):
    return (splitmix(seed, n) % np.uint64(limit)).astype(np.int64)


def loads(addresses):
    return addresses.astype(np.int64), np.zeros(addresses.size, np.int8)


def seq(n, size):
    return loads(np.arange(n) * size)


def strided(n, stride, span):
    return loads(np.arange(n) * stride % span)


def cyc(n, lines):
    return loads(np.arange(n) % lines * 64)


def rand(seed, n, span, size):
    return loads(below(seed, n, span // size) * size)


def hotcold(seed, n, hot, cold, percent):
    is_hot = below(seed, n, 100) < percent
    far = (1 << 30) + below(seed + 2, n, cold // 8) * 8
    return loads(np.where(is_hot, below(seed + 1, n, hot // 8) * 8, far))


def rw(seed, n, span, percent):
    stores = below(seed, n, 100) < percent
    return below(seed + 1, n, span // 8) * 8, stores.astype(np.int8)


def _joined(accesses):
    """From a list of (address, is_store) pairs."""
    addresses, stores = zip(*accesses, strict=True)
    return np.array(addresses, np.int64), np.array(stores, np.int8)


def mm_ijk(n):
    found = []
    for i in range(n):
        for j in range(n):
            for k in range(n):
                found += [(A + 8 * (i * n + k), 0), (B + 8 * (k * n + j), 0)]
            found += [(C + 8 * (i * n + j), 0), (C + 8 * (i * n + j), 1)]
    return _joined(found)


def mm_ikj(n):
    return mm_blk(n, n)


def mm_blk(n, b):
    """Blocks of b in the order i, k, j; within a block i, k, j as well."""
    found = []
    starts = range(0, n, b)
    for i0, k0, j0 in ((i, k, j) for i in starts for k in starts for j in starts):
        for i in range(i0, i0 + b):
            for k in range(k0, k0 + b):
                found.append((A + 8 * (i * n + k), 0))
                for j in range(j0, j0 + b):
                    c = C + 8 * (i * n + j)
                    found += [(B + 8 * (k * n + j), 0), (c, 0), (c, 1)]
    return _joined(found)


def _mask(seed, rows, columns, sparsity):
    uniform = (splitmix(seed, rows * columns) >> np.uint64(11)).astype(np.float64) / 2**53
    return (uniform >= sparsity).reshape(rows, columns)


def csr_spmm(seed, rows, columns, n, sparsity):
    """Y[r] += value · X[c] for each non-zero, float32; Y is loaded once per access, not here."""
    found = []
    for p, (r, c) in enumerate(np.argwhere(_mask(seed, rows, columns, sparsity))):
        found += [(INDEX + 4 * p, 0), (A + 4 * p, 0)]
        for j in range(n):
            found += [(B + 4 * (c * n + j), 0), (C + 4 * (r * n + j), 1)]
    return _joined(found)


def csc_scatter(seed, rows, columns, n, sparsity):
    """dX[c] += value · dY[r]: dX is loaded and stored."""
    found = []
    for p, (r, c) in enumerate(np.argwhere(_mask(seed, rows, columns, sparsity))):
        found += [(INDEX + 4 * p, 0), (A + 4 * p, 0)]
        for j in range(n):
            dx = B + 4 * (c * n + j)
            found += [(C + 4 * (r * n + j), 0), (dx, 0), (dx, 1)]
    return _joined(found)


def condensed(seed, rows, columns, fan_in, batch):
    """y[b, r] = Σ w[r, j] · x[b, index[r, j]]; indices and values are rows × fan_in."""
    order = np.argsort(splitmix(seed, rows * columns).reshape(rows, columns), 1, kind="stable")
    index = np.sort(order[:, :fan_in], axis=1)
    found = []
    for b in range(batch):
        for r in range(rows):
            for j in range(fan_in):
                p = 4 * (r * fan_in + j)
                found += [(INDEX + p, 0), (A + p, 0), (B + 4 * (b * columns + index[r, j]), 0)]
            found.append((C + 4 * (b * rows + r), 1))
    return _joined(found)
