"""What a job does as a whole: runs of the schedule, the search over them, curve and comparison."""
