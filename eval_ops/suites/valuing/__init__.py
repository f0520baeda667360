"""What a written answer is worth: metrics, grades of judges, programs that are run."""
