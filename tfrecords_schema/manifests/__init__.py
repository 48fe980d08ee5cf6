"""What directories say of themselves, in files that readers trust: decoded into what they must be, or refused."""
