"""The commands `agileact study` and `agileact compare`."""
