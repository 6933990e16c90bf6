"""Sparse training in others' training loops; each framework is imported only where it is used.

- `loop.sparse_loop`: a context for loops written by hand
- `huggingface.SparseCallback`: transformers' Trainer
- `lightning.SparseCallback`: Lightning's Trainer
- `accelerate.AcceleratedSparsity`: a loop under accelerate
"""
