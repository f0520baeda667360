"""What leaves the store with the team's word for it: signed, pushed to a hub, or exported."""
