"""What can be said about a rig's files without its devices; one file per thing that is checked."""
