"""sparse_train: dynamic sparse training of torch modules."""
