"""One step watched: operators, where each weight goes, what it costs."""
