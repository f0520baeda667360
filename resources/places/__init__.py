"""Where bytes live: a local file system or an S3 bucket."""

from resources.places.opening import open_place
from resources.places.place import Entry, Place, PlaceReader, PlaceWriter

__all__ = ["Entry", "Place", "PlaceReader", "PlaceWriter", "open_place"]
