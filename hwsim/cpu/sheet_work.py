"""Vector instructions of products on a processor of which no kernel was timed."""

from __future__ import annotations

from hwsim.kernels.cpu.layout import lanes_for

# Rows and vectors of a dense product's results that registers hold, as BLAS libraries have it.
# Source: Goto and van de Geijn (2008), "Anatomy of high-performance matrix multiplication", ACM
# TOMS 34(3), section 4; 4 to 6 rows by 2 to 4 vectors in OpenBLAS and BLIS.
DENSE_TILE = (6, 2)
# Assumed: loading index and value of a weight and spreading the value; adding up a vector's lanes
# (eight vectors at a time); the load of an input by its index and the addition that waits for it.
_VISIT_CYCLES, _FOLD_CYCLES, _GATHER_CYCLES = 2.0, 2.0, 2.0


def gemm_vectors(m: int, n: int, k: int, lanes: int) -> float:
    """Multiply-adds of vectors in an m × n × k product, along whichever side wastes less.

    >>> gemm_vectors(8, 32, 10, 16)
    160.0
    """
    along_n, along_m = m * -(-n // lanes), n * -(-m // lanes)
    return float(min(along_n, along_m) * k)


def sparse_cycles(kernel: str, m: int, nnz: int, lanes: int, load_ports: float) -> float:
    """Cycles of one core for `nnz` weights and m samples.

    Each multiply-add of a vector loads it, each weight is visited once a block of samples. CSR
    loads and stores its results beside that; the sampled gradient adds up the lanes.

    >>> sparse_cycles("tiled", 64, 10, 16, 2.0)
    40.0
    """
    if kernel == "csr":
        if m == 1:
            return nnz * _GATHER_CYCLES
        return nnz * (-(-m // lanes) * 2 / load_ports + _VISIT_CYCLES)
    block = lanes_for(m)
    blocks, vectors = -(-m // block), -(-block // lanes)
    fold = _FOLD_CYCLES if kernel == "sampled" else 0.0
    return nnz * blocks * (vectors / load_ports + _VISIT_CYCLES + fold)
