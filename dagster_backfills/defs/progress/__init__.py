"""Precomputed statistics: what each student has done, and each cohort's average of it."""
