"""One run: its problem, its training, its folder, the attacks on what was trained; `experiment.py` joins them."""
