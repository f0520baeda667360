"""The commands that make models out of files, without a catalog: merged, planned, averaged,
extracted.
"""
