"""What CPU kernels do, counted; the device model and its calibration share it."""
