"""What draws: imported late, by the first plot, because every file may import matplotlib and seaborn at its top."""
