"""The web pages. They work without JavaScript and update live with it. Changes go through `actions`."""
