"""What `config.py` leaves out: config files, flags, checks, and configs as they are stored."""
