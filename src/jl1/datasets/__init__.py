"""Where datasets lie and how their files are read; `data.py` is the way in."""
