"""Pages in a browser: the demo, the leaderboard, the questionnaire, and the server of them all."""
