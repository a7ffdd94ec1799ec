"""Local models of a platform: architectures, distillation from answers, fidelity. Arrays in, arrays out."""
