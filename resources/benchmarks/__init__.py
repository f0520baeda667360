"""What benchmarks need of the network: files at a pinned commit, and a judge's endpoint."""

from resources.benchmarks.chat_endpoint import ask_endpoint
from resources.benchmarks.pinned_files import fetch_file, kept_file

__all__ = ["ask_endpoint", "fetch_file", "kept_file"]
