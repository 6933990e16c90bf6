"""What GPU kernels take; the device model and its calibration share it."""
