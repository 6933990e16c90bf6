"""From records to a device specification."""
