"""What starts workers: this machine, SLURM, Ray. None of them decides what is done."""
