"""`ronghe refresh`: observe, ask the conditions, run what they ask for."""
