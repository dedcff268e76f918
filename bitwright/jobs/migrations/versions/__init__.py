"""One file a revision, numbered; a published revision never changes."""
