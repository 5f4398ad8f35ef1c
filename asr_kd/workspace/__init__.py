"""A recipe on disk: its config, its work folder, where its work runs."""
