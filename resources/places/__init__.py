"""Where bytes live: a local file system or an S3 bucket."""
