"""From an algorithm to an agent that learns, is kept, and guides a run."""
