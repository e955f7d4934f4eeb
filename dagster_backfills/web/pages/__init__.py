"""Pages for people: rendered here, readable without JavaScript, live with it. What they change, `actions` does."""
