"""What ships to a device: numpy and one runtime, never torch."""
