"""Where upstream models come from: folders, S3, the Hugging Face Hub."""
