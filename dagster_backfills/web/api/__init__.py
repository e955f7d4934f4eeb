"""What programs ask for, by the names that the five systems gave it."""
