"""Other tools' mixed checkpoints and files as plans of ours: which unit is stored in which format."""
