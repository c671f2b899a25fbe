"""A generator of tool-calling conversations: needs drawn from `domains/`, told in one of the `shapes`."""
