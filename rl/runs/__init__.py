"""Networks and tasks of episodes, their dense runs and their prices."""
