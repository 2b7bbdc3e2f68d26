package check

// Protocol is one word that may stand first in a check URL, and what it means.
type Protocol struct {
	Name string
	// Check asks the service. nil: overrides alone decide (spool).
	Check Func
	// URI: the path and query reach the service and decide the answer; the slash after the port is required.
	URI bool
	// PerService: the answer depends on the service's name, so it is part of the cache key.
	PerService bool
	// NoPort: it can be asked without a port (spool, checks).
	NoPort bool
}

// Set holds the protocols by name.
type Set map[string]Protocol
