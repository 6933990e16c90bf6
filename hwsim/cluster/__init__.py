"""Many devices: links, parallel forms, memory, and what a step on them takes."""
