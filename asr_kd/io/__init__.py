"""What artefacts are written with: atomic files, append logs with a commit point, stamps."""
