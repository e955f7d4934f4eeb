"""Operations across all domains: run history, failure notifications, controls and undo."""
