"""People from data sets: digits, CIFAR-10/100 and FairFace as the hub has them, a user's own files."""
