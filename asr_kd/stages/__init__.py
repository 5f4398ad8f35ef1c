"""One module per stage, named like its command: reads the work folder, calls the library, writes artefacts."""
