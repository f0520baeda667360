"""A recipe resolved against real headers: plans, compatibility, reuse, resume."""
