"""What can be asked of each command: one frozen dataclass a command, whose fields are its flags."""
