"""The built-in world: arithmetic stories, a tiny policy that was taught wrong habits, and a demonstration."""
