"""The command line (extra `cli`): `app` has the commands, one module for each; the rest is what they share."""
