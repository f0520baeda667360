"""A catalog of one's own: begun (`ronghe init`), added to (`add`), looked at (`check`)."""
