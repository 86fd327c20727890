"""What every training program shares: settings, one update, exact resume, the run's folder and loop."""
