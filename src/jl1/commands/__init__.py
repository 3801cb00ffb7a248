"""The subcommands of `jl1`, one a file: its flags, and `run(arguments)`, which returns the exit status."""
