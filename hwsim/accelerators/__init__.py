"""What the idealised accelerators share; `hwsim.devices` has the machines themselves."""
