"""Real engines that are no part of the lock, in environments of their own below `.nodes`."""
