"""What every other package uses: files that appear whole, settings, statistics, progress, the console."""
