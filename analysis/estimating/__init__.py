"""From a model to a table of prices."""
