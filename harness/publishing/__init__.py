"""Records sent on: to a leaderboard, a data set on the Hub, model cards, and the formats of others."""
