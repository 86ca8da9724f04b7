"""`thermal-search translate`: RGB images and videos through an exported generator.

settings.py    the flags
sources.py     which image becomes which file
marks.py       how a written file shows that it is ours, and of what it was made
geometry.py    an image as patches of the sizes that the generator takes, and back
rendering.py   generated images as gray levels, temperatures or colors, and as PNG
worker.py      reads, generates and writes, all at the same time
video.py       the frames of a video
processes.py   several workers on one machine
cluster.py     workers on a Ray cluster
command.py     the command
"""
