"""What every package here stands on: files that appear whole, settings, statistics, progress, the console."""
