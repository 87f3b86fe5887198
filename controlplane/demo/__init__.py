"""`comptroller demo`: real agents, a real model, and figures that must agree."""
