"""How numbers, tables and progress look in a terminal."""
