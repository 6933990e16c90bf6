"""What is known of masks beside their bits: counts, condensed forms, statistics."""
