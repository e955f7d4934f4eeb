"""Precomputed statistics: each student's progress, and each cohort's average."""
