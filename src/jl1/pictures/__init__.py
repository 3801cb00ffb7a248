"""Pictures of a network under attack: functions from plain arrays to one PNG each. They need matplotlib."""
