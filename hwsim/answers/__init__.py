"""Why a price is what it is: explanations, timelines, choices per layer."""
