"""What benchmarks need of the network: files at a pinned commit, and a judge's endpoint."""

from resources.benchmarks.chat_endpoint import ask_endpoint, endpoint_key
from resources.benchmarks.pinned_files import fetch_file, kept_file

__all__ = ["ask_endpoint", "endpoint_key", "fetch_file", "kept_file"]
