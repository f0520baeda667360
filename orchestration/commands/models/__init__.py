"""What a command's words for models mean: folders and files here, far models, and where output
goes.
"""
