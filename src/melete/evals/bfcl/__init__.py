"""The Berkeley Function-Calling Leaderboard's single-turn rules: tools as JSON schema, matching of calls, literals."""
