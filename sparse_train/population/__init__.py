"""Many small networks of one architecture trained at once."""
