"""The software-defined assets: thin functions that read a partition key and call one function."""
