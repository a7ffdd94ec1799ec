"""Where the answers come from: the platform in process or over HTTP."""
